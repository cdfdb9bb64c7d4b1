// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

constexpr int kMostLinks = 40;  // as the kernel's
constexpr mode_t kModeBits = 07777;

/// N of /dev/fd/N and of what leads there; else -1.
int descriptor_of(const fs::path& path) {
  std::error_code failure;
  const fs::path folder = fs::canonical(path.parent_path(), failure);
  if (failure || folder != fs::canonical("/proc/self/fd", failure)) return -1;
  const std::string name = path.filename().string();
  int number = -1;
  const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), number);
  return problem == std::errc() && end == name.data() + name.size() ? number : -1;
}

/// Empty, or why a write failed.
std::string write_all(int descriptor, const std::string& text) {
  const char* at = text.data();
  for (std::size_t left = text.size(); left > 0;) {
    const ssize_t put = ::write(descriptor, at, left);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return std::strerror(errno);
    at += put;
    left -= static_cast<std::size_t>(put);
  }
  return "";
}

/// Some file systems say only here that the disk is full.
std::string close_of(int descriptor, const std::string& problem) {
  const bool closed = ::close(descriptor) == 0;
  return problem.empty() && !closed ? std::strerror(errno) : problem;
}

std::string write_in_place(const OutputPlace& place, const std::string& text) {
  if (place.descriptor == STDOUT_FILENO) std::cout.flush();  // what has been said before stands before it
  const int file = place.descriptor >= 0 ? ::fcntl(place.descriptor, F_DUPFD_CLOEXEC, 0)
                                         : ::open(place.path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0) return std::strerror(errno);
  return close_of(file, write_all(file, text));
}

/// Best effort for the owner, which only root may give away.
void take_mode(int file, const struct stat& of) {
  [[maybe_unused]] const int given = ::fchown(file, of.st_uid, of.st_gid);
  ::fchmod(file, of.st_mode & kModeBits);
}

std::string replace(const std::string& path, const std::string& text) {
  const std::string part = path + ".part";
  ::unlink(part.c_str());  // of a job that died
  const int file = ::open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) return std::strerror(errno);
  struct stat old {};
  if (::stat(path.c_str(), &old) == 0) take_mode(file, old);
  std::string problem = close_of(file, write_all(file, text));
  if (problem.empty() && ::rename(part.c_str(), path.c_str()) != 0) problem = std::strerror(errno);
  if (!problem.empty()) ::unlink(part.c_str());
  return problem;
}

/// Empty, or why nothing can be written there.
std::string obstacle(const OutputPlace& place) {
  if (fs::is_directory(place.path) || place.path.ends_with('/')) return "it is a folder";
  if (place.descriptor >= 0) {
    const int flags = ::fcntl(place.descriptor, F_GETFL);
    if (flags >= 0 && (flags & O_ACCMODE) == O_RDONLY) errno = EBADF;
    return flags < 0 || (flags & O_ACCMODE) == O_RDONLY ? std::strerror(errno) : "";
  }
  const std::string folder = fs::absolute(place.path).parent_path().string();
  if (!place.in_place && ::access(folder.c_str(), W_OK) != 0) return std::strerror(errno);
  const bool there = ::access(place.path.c_str(), F_OK) == 0;
  return there && ::access(place.path.c_str(), W_OK) != 0 ? std::strerror(errno) : "";
}

/// As the user wrote it, and where it leads when that is another name.
std::string name_of(const std::string& path, const OutputPlace& place) {
  return place.in_place || place.path == path ? path : concat(path, " (a link to ", place.path, ")");
}

}  // namespace

OutputPlace place_of_output(const std::string& path) {
  fs::path at = path;
  struct stat status {};
  const bool in_place = ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
  for (int links = 0; links <= kMostLinks; ++links) {
    if (const int descriptor = descriptor_of(at); descriptor >= 0) return {path, true, descriptor};
    std::error_code no_link;
    const fs::path to = fs::read_symlink(at, no_link);
    if (no_link) return {in_place ? path : at.string(), in_place};
    at = at.parent_path() / to;  // `to` alone when it is absolute
  }
  throw UserError(concat("cannot write ", path, ": ", std::strerror(ELOOP)));
}

void check_writable(const std::string& flag, const std::string& path) {
  const OutputPlace place = place_of_output(path);
  if (const std::string reason = obstacle(place); !reason.empty())
    throw UserError(concat(flag, ": cannot write ", name_of(path, place), ": ", reason));
}

void write_whole_file(const std::string& path, const std::string& text) {
  const OutputPlace place = place_of_output(path);
  const std::string problem = place.in_place ? write_in_place(place, text) : replace(place.path, text);
  if (!problem.empty()) throw Error(concat("cannot write ", name_of(path, place), ": ", problem));
}

}  // namespace lockstep
