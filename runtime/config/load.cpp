// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "runtime/config/value.hpp"

namespace lockstep {
namespace {

/// Names beside a file that was not found.
std::vector<std::string> names_beside(const std::filesystem::path& path) {
  std::vector<std::string> names;
  std::error_code ignored;
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  for (std::filesystem::directory_iterator entry(folder, ignored), end; !ignored && entry != end;
       entry.increment(ignored)) {
    names.push_back(entry->path().filename().string());
  }
  return names;
}

std::string read_text(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    throw ConfigError({path, 0, 0}, "", "got a folder, expected a YAML file");
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  // An empty file makes operator<< fail: nothing was written.
  if (file && file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  if (file.is_open() && !file.bad()) return text.str();
  const std::string reason = errno == 0 ? "it cannot be read" : std::strerror(errno);
  const std::filesystem::path wanted(path);
  throw ConfigError({path, 0, 0}, "",
                    concat("got no file (", reason, "), expected a YAML file that can be read",
                           did_you_mean(wanted.filename().string(), names_beside(wanted))));
}

}  // namespace

Section load_config_text(const std::string& text, const std::string& name, const std::vector<std::string>& overrides,
                         const std::vector<ConfigOverlay>& overlays) {
  auto root = std::make_shared<yaml::Value>(yaml::parse(text, {name}));
  if (root->kind == yaml::Value::Kind::null) {
    throw ConfigError({name, 1, 1}, "", "got an empty document, expected a mapping ('key: value' lines)");
  }
  if (root->kind != yaml::Value::Kind::mapping) {
    throw ConfigError(root->at, "",
                      concat("got ", yaml::describe(*root), " at the top, expected a mapping ('key: value' lines)"));
  }
  for (const ConfigOverlay& overlay : overlays) yaml::apply_overlay(*root, overlay);
  for (const std::string& override_text : overrides) yaml::apply_override(*root, override_text);
  return yaml::root_section(std::move(root));
}

Section load_config_file(const std::string& path, const std::vector<std::string>& overrides,
                         const std::vector<ConfigOverlay>& overlays) {
  return load_config_text(read_text(path), path, overrides, overlays);
}

}  // namespace lockstep
