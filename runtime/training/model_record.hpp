// SPDX-License-Identifier: Apache-2.0
//
// What a checkpoint says of its model, for who has neither the config nor the data: model.yaml.
#pragma once

#include <string>
#include <vector>

#include "runtime/checkpoint/store.hpp"
#include "runtime/config/section.hpp"
#include "runtime/training/assembly.hpp"

namespace lockstep {

inline constexpr const char* kModelFile = "model.yaml";

struct ModelRecord {
  Section root;                      ///< `model` and `plugins`, as a config has them; no `model`: the program's own
  std::vector<std::string> plugins;  ///< of it
  /// What the model reads, each of one row.
  std::vector<EntrySpec> inputs;
};

/// The text of the file.
std::string model_record(const Assembly& assembly);
/// Throws CheckpointError when the file is damaged, or there is none.
ModelRecord model_record_of(const CheckpointStore& store);

}  // namespace lockstep
