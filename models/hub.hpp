// SPDX-License-Identifier: Apache-2.0
//
// Models by the config.json of a Hugging Face folder: `model: {from: FOLDER}`. A family that can be had so turns that
// file into its own keys, and refuses by name what it cannot do.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "models/registry.hpp"

namespace lockstep {

class HubConfig {
 public:
  /// Throws UserError when there is no FOLDER/config.json, or when it is no JSON object.
  explicit HubConfig(const std::string& folder);

  const std::string& file() const { return file_; }
  /// Present, and not null.
  bool has(const std::string& key) const { return json_.contains(key) && !json_[key].is_null(); }
  template <typename T>
  T get(const std::string& key) const {
    if (!has(key)) throw error(key, "is missing");
    try {
      return json_[key].get<T>();
    } catch (const nlohmann::json::exception&) {
      throw error(key, "got " + json_[key].dump() + ", which is of another type");
    }
  }
  template <typename T>
  T get(const std::string& key, const T& otherwise) const {
    return has(key) ? get<T>(key) : otherwise;
  }
  /// What the family cannot do otherwise; a file may lack the key.
  template <typename T>
  void expect(const std::string& key, const T& only) const {
    if (get<T>(key, only) != only)
      throw error(key, "got " + json_[key].dump() + ", expected " + nlohmann::json(only).dump() +
                           ": nothing else is available");
  }
  /// The dropout `key`, which `others` have to be too: a family has one rate for all. Each is 0.1 where the file lacks
  /// it.
  double one_rate(const std::string& key, const std::vector<std::string>& others) const;
  /// A mapping; an empty one where there is none.
  HubConfig below(const std::string& key) const;
  [[nodiscard]] UserError error(const std::string& key, const std::string& message) const;

 private:
  HubConfig(std::string file, std::string path, nlohmann::json json)
      : file_(std::move(file)), path_(std::move(path)), json_(std::move(json)) {}

  std::string file_, path_;
  nlohmann::json json_;
};

/// `model` with the keys that the folder in its key `from` stands for, below its own ones, which count; without `from`
/// as it is. Throws ConfigError that names the model types that are known.
Section from_hub(const Section& model, const Table<ModelFamily>& families);

}  // namespace lockstep
