// SPDX-License-Identifier: Apache-2.0
#include "partitioner/profile_cache.hpp"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>
#include <system_error>

namespace lockstep {

std::string ProfileCache::file_of(const std::string& key) const {
  std::ostringstream name;
  name << folder_ << "/" << std::hex << std::setw(16) << std::setfill('0') << std::hash<std::string>()(key) << ".json";
  return name.str();
}

std::optional<LayerSample> ProfileCache::find(const std::string& key) const {
  std::error_code ignored;
  if (folder_.empty() || !std::filesystem::is_regular_file(file_of(key), ignored)) return std::nullopt;
  try {
    const Section root = load_config_file(file_of(key));
    if (root.get<std::string>("key") != key) return std::nullopt;
    const LayerSample sample = read_sample(root.required_section("sample"));
    root.finish();
    return sample;
  } catch (const Error&) {
    return std::nullopt;  // damaged, or of another version: measured and written again
  }
}

std::string ProfileCache::store(const std::string& key, const LayerSample& sample) const {
  if (folder_.empty()) return "";
  namespace fs = std::filesystem;
  const std::string file = file_of(key), unfinished = concat(file, ".", ::getpid());
  try {
    fs::create_directories(folder_);
    std::ofstream out(unfinished, std::ios::binary);
    out << "{\"key\": " << nlohmann::json(key).dump() << ",\n \"sample\": " << to_json(sample) << "}\n";
    out.close();
    if (!out) throw fs::filesystem_error("cannot be written", unfinished, std::make_error_code(std::errc::io_error));
    fs::rename(unfinished, file);
    return "";
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove(unfinished, ignored);
    return concat("the cache of profiles ", folder_, " cannot be written: ", error.code().message());
  }
}

std::string default_profile_cache() {
  const auto folder = [](const char* variable) {
    const char* value = std::getenv(variable);
    return std::string(value ? value : "");
  };
  if (const std::string cache = folder("XDG_CACHE_HOME"); !cache.empty()) return cache + "/lockstep/layers";
  if (const std::string home = folder("HOME"); !home.empty()) return home + "/.cache/lockstep/layers";
  return "";
}

}  // namespace lockstep
