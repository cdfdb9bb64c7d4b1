// SPDX-License-Identifier: Apache-2.0
//
// Comparing two runs bit by bit: what `lockstep verify` and the parity tests do.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/training/trainer.hpp"

namespace lockstep {

/// All that one run computed, as bits.
struct RunRecord {
  std::vector<StepResult> results;    ///< training and evaluation, in order
  std::vector<ParameterHash> hashes;  ///< of every step: gradients, values and buffers
  std::vector<FinalParameter> parameters;
  std::vector<FinalBuffer> buffers;

  /// Bytes for gathering over ranks: hashes only.
  std::string hashes_to_bytes() const;
  void add_hashes(const std::string& bytes);
};

/// Trains and records everything; the observer and the hashes of `options` are its own.
RunRecord record_run(Trainer& trainer, RunOptions options = {}, const TrainingOrders& orders = {});

/// The first thing that differs, in the order in which a step computes: gradients (model order), gradient norm, loss,
/// weights, buffers. Empty: bit-identical. `reference` is the one-worker run.
std::optional<std::string> first_difference(const RunRecord& reference, const RunRecord& tested,
                                            const ModelGraph& graph);

/// The same job on one worker: one stage, in process. Numerics are untouched.
Config one_worker(Config config);

}  // namespace lockstep
