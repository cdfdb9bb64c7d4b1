// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/layer/layer.hpp"
#include "runtime/layer/low_rank.hpp"

namespace lockstep {

/// Where a loss reads the model. A head may read any entry that is alive at the end of the model (deep supervision: an
/// entry that a layer in the middle writes and nothing overwrites); it is computed on the stage that makes the entry.
struct Head {
  std::string output = "x";         ///< entry that the loss reads
  std::string targets = "targets";  ///< entry of the data that the loss compares it with
  std::string loss = {};            ///< empty: train.loss
  double weight = 1.0;              ///< of this head in the sum over heads; > 0
};

/// A model is a list of layers. Entries are named in LayerSpec; the data gives the first ones (usually "x" and
/// "targets"). What is minimised is the sum over heads of weight * loss, each loss over its own denominator.
struct Model {
  std::string name;
  std::vector<LayerSpec> layers;
  std::vector<Head> heads = std::vector<Head>(1);
  /// config.json of its checkpoints, for families that Hugging Face's transformers know, without `torch_dtype`; empty:
  /// a generic one.
  std::string hub_config = {};
  /// What the names of a file may lack in front when it holds the family's base model alone: "transformer.".
  std::string hub_prefix = {};
  /// Shell patterns of tensors that such files may have and this model does without: "*.attn.bias".
  std::vector<std::string> hub_unused = {};
  /// Ends of names, and how such files may spell them instead: {".LayerNorm.weight", ".LayerNorm.gamma"}.
  std::vector<std::pair<std::string, std::string>> hub_spellings = {};
  /// The layers are those of a base, with adapters (with_adapters() of models/lora.hpp).
  std::optional<LowRankConfig> adapter = {};
};

/// What files may call the parameter or buffer that a model has under any of `names`, the likeliest first.
std::vector<std::string> names_in_files(const Model& model, std::vector<std::string> names);

}  // namespace lockstep
