// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/input_files.hpp"

#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {
namespace {

DataError unreadable(const std::string& path, int error) {
  return DataError(concat(path, ": cannot be read: ", std::strerror(error),
                          path.starts_with('/') ? "" : concat(" (working folder: ", working_folder(), ")")));
}

bool is_regular_file(const char* path) {
  struct stat status = {};
  // A broken link counts as a file: it was meant, and reading it says what is wrong.
  return stat(path, &status) != 0 || S_ISREG(status.st_mode);
}

}  // namespace

std::string read_file(const std::string& path, std::int64_t most) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) throw unreadable(path, errno);
  struct stat status = {};
  fstat(fileno(file.get()), &status);
  // /dev/zero never ends, and a terminal waits for somebody to type.
  if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode))
    throw DataError(concat(path, ": cannot be read: it is a device, not a file"));
  constexpr std::size_t block = 1 << 16;  // for what has no size: a pipe, /proc
  std::size_t room = std::max<std::size_t>(static_cast<std::size_t>(status.st_size) + 1, block);
  const auto limit = most > 0 ? static_cast<std::size_t>(most) : std::string().max_size();
  std::string bytes;
  while (bytes.size() < limit) {
    const std::size_t have = bytes.size();
    bytes.resize(have + std::min(room, limit - have));
    const std::size_t got = std::fread(bytes.data() + have, 1, bytes.size() - have, file.get());
    const int error = errno;
    const bool full = have + got == bytes.size();
    bytes.resize(have + got);
    if (std::ferror(file.get())) throw unreadable(path, error);
    if (!full) break;
    room = std::max(block, bytes.size());
  }
  return bytes;
}

DataFile data_file(const std::string& path, std::string_view bytes) {
  return {path, static_cast<std::int64_t>(bytes.size()), hash_of(bytes)};
}

namespace {

/// `path` as a pattern that matches nothing else.
std::string escaped(const std::string& path) {
  std::string pattern;
  for (const char c : path) {
    if (std::strchr("*?[]\\", c)) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t matches = {};
  const std::unique_ptr<glob_t, void (*)(glob_t*)> guard(&matches, globfree);
  // What is not there does not match; what may not be looked into is an error.
  const auto on_error = [](const char*, int error) { return error == ENOENT || error == ENOTDIR ? 0 : 1; };
  const int status = glob(pattern.c_str(), GLOB_NOSORT, on_error, &matches);
  if (status == GLOB_NOMATCH) return {};
  if (status != 0) throw DataError(concat(pattern, ": a folder on the way cannot be listed: ", std::strerror(errno)));
  return {matches.gl_pathv, matches.gl_pathv + matches.gl_pathc};
}

bool exists(const std::string& path) {
  struct stat status = {};
  return lstat(path.c_str(), &status) == 0;
}

}  // namespace

std::vector<std::string> matching_files(const std::string& pattern) {
  std::vector<std::string> found = {""};
  for (std::size_t begin = 0; begin < pattern.size();) {
    const std::size_t slash = std::min(pattern.find('/', begin), pattern.size());
    const std::string part = pattern.substr(begin, slash - begin);
    const std::size_t end = std::min(pattern.find_first_not_of('/', slash), pattern.size());
    const std::string slashes = pattern.substr(slash, end - slash);
    std::vector<std::string> longer;
    for (const std::string& folder : found) {
      if (part.empty() || exists(folder + part))
        longer.push_back(folder + part + slashes);
      else
        for (const std::string& match : matches_of(escaped(folder) + part)) longer.push_back(match + slashes);
    }
    found = std::move(longer);
    begin = end;
  }
  std::erase_if(found, [](const std::string& path) { return path.empty() || !is_regular_file(path.c_str()); });
  return found;
}

std::vector<std::string> read_patterns(const Section& section, const std::string& key) {
  if (!section.is_sequence(key)) return {section.get<std::string>(key, not_empty())};
  auto patterns = section.list<std::string>(key, not_empty());
  if (patterns.empty()) throw section.unexpected(key, "a glob or a list of globs");
  return patterns;
}

std::vector<std::string> files_of(const Section& section, const std::string& key,
                                  const std::vector<std::string>& patterns) {
  std::vector<std::string> files;
  for (const std::string& pattern : patterns) {
    const std::vector<std::string> matches = matching_files(pattern);
    if (matches.empty()) {
      const bool shell = pattern.starts_with('~') || pattern.find('$') != std::string::npos;
      throw section.error(key, concat("no file matches '", pattern, "' (working folder: ", working_folder(), ")",
                                      shell ? "; ~ and ${X} are not expanded here: write the path out" : ""));
    }
    files.insert(files.end(), matches.begin(), matches.end());
  }
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  return files;
}

std::string names_of(const std::vector<std::string>& files) {
  return concat(files.front(), files.size() > 1 ? concat(" and ", files.size() - 1, " more") : "");
}

std::string working_folder() {
  std::error_code error;
  return std::filesystem::current_path(error).string();
}

}  // namespace lockstep
