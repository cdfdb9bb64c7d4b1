// SPDX-License-Identifier: Apache-2.0
//
// Where a run starts: at the beginning, or from a checkpoint.
#pragma once

#include <memory>
#include <string>

#include "runtime/training/initial_weights.hpp"
#include "runtime/training/trainer_state.hpp"

namespace lockstep {

struct Start {
  std::string checkpoint = {};  ///< empty: the beginning
  /// The beginning's weights, or with a checkpoint those of the base of an adapted model; null: drawn.
  std::shared_ptr<const InitialWeights> initial = {};
  bool averaged = false;    ///< as the rules say
  TrainerState state = {};  ///< step 0, or that of the checkpoint; everything else as it is here
  TrainerState saved = {};  ///< as the checkpoint has it, with the machine that wrote it; that of step 0 without one
  ResumeFindings findings = {};

  /// Whether the optimizer's state begins here, though the weights are a checkpoint's.
  bool optimizer_restarts() const { return !checkpoint.empty() && state.optimizer_after == state.step; }
};

Start fresh_start(const Assembly& assembly);
/// The same with the weights of train.init_from. Throws as initial_weights().
Start initial_start(const Assembly& assembly);

/// Nothing is read but headers. The assembly's data becomes that which the checkpoint was trained on, where the files
/// are the same and only what they taught is not. Throws CheckpointError when it is damaged or of another model,
/// ConfigError when the config would compute other numbers, or the data is other data, and `rules` do not say that this
/// is meant.
Start resume(Assembly& assembly, const std::string& checkpoint, const ResumeRules& rules = {});

}  // namespace lockstep
