// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "runtime/layer/layer.hpp"

namespace lockstep {

/// A model is a list of layers. Entries are named in LayerSpec; the data gives the first ones (usually "x" and
/// "targets").
struct Model {
  std::string name;
  std::vector<LayerSpec> layers;
  std::string output = "x";         ///< entry that the loss reads
  std::string targets = "targets";  ///< entry of the data that the loss compares it with
  /// config.json of its checkpoints, for families that Hugging Face's transformers know; empty: a generic one.
  std::string hub_config = {};
};

}  // namespace lockstep
