// SPDX-License-Identifier: Apache-2.0
//
// Measured samples by what they depend on, a small file each. What cannot be read, or is of something else, counts as
// not there and is measured again. Torch-free.
#pragma once

#include <optional>
#include <string>

#include "partitioner/profile_file.hpp"

namespace lockstep {

class ProfileCache {
 public:
  /// `folder` is made when something is stored. Empty: nothing is ever found or stored.
  explicit ProfileCache(std::string folder) : folder_(std::move(folder)) {}

  /// `key`: everything that the sample depends on, as one line of text.
  std::optional<LayerSample> find(const std::string& key) const;
  /// Written beside and renamed: other processes see all of it or nothing. Returns what went wrong, or "".
  std::string store(const std::string& key, const LayerSample& sample) const;
  std::string file_of(const std::string& key) const;

 private:
  std::string folder_;
};

/// ${XDG_CACHE_HOME:-~/.cache}/lockstep/layers; empty when neither variable is set.
std::string default_profile_cache();

}  // namespace lockstep
