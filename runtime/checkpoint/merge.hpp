// SPDX-License-Identifier: Apache-2.0
//
// An adapter and its base as one model.
#pragma once

#include <cstdint>
#include <string>

namespace lockstep {

struct MergedModel {
  std::string base;          ///< the folder or file that the adapter names
  std::int64_t adapted = 0;  ///< matrices that an adapter was added to
  std::int64_t tensors = 0, bytes = 0;
};

/// Writes the folder `output`, which must not exist: the tensors of the base of the adapter in `folder`, under their
/// names and in their dtypes, where an adapter belongs to one with scale B A added in float32 (float64 to a float64
/// one); what was trained itself in its place; config.json and the tokenizer's files of the base. Files of 4 GiB, each
/// made in memory. `base`: where it is now; empty: where the adapter says. `averaged`: of a checkpoint, the averages of
/// what was trained (train.ema). Throws CheckpointError when files are damaged or something has no place in the base;
/// nothing is left then.
MergedModel merge_adapter(const std::string& folder, const std::string& output, const std::string& base = "",
                          bool averaged = false);

}  // namespace lockstep
