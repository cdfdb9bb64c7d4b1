// SPDX-License-Identifier: Apache-2.0
//
// What is wrong with a config before hours are spent on it: a few steps are trained, and looked at.
//
//   data      samples that are there twice, in training and evaluation; one class only, or hardly another; large inputs
//   memory    what the model keeps, and what a step needs at most, against what there is
//   start     the loss of the first step against that of outputs of 0: as good as knowing nothing
//   layers    parameters without a gradient, layers whose outputs are 0 or the same for every sample
//   learning  one batch, again and again: its loss has to fall
//   rate      the first steps of the training itself: the loss must not explode
#pragma once

#include <string>
#include <vector>

#include "runtime/training/trainer.hpp"

namespace lockstep {

struct CheckFinding {
  enum class Verdict { fine, doubtful, wrong } verdict = Verdict::fine;
  std::string topic;   ///< "layers"
  std::string text;    ///< what was found
  std::string advice;  ///< what to change; empty: nothing
};

/// In this process. `state_bytes`: what parameters, gradients and optimizer state of all workers need. `tables`: those
/// of the trainer.
std::vector<CheckFinding> check_model(Trainer& trainer, double state_bytes, const TrainTables& tables = {});

}  // namespace lockstep
