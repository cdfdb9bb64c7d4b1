// SPDX-License-Identifier: Apache-2.0
//
// What a checkpoint knows beside tensors: where training is, and what its numbers depend on. trainer.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/checkpoint/store.hpp"
#include "runtime/config/plateau.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/training/environment.hpp"

namespace lockstep {

/// Of TrainerState::numerics, beside the config's keys: DataSplits::arithmetic.
inline constexpr const char* kDataArithmetic = "data.arithmetic";

/// Among TrainerState::numerics only where the learning rate follows evaluations: else how often they are is free.
inline constexpr const char* kEvalEvery = "train.eval_every";

/// The best evaluation so far, of those after whose step there is a checkpoint.
struct BestEvaluation {
  std::int64_t step = 0;
  double value = 0;
  std::string watched = kEvalLoss;  ///< by what: checkpoint.best
};

struct TrainerState {
  std::int64_t step = 0;      ///< optimizer steps done
  std::int64_t position = 0;  ///< training samples consumed; epoch and order follow from it and the seed
  std::int64_t samples = 0;   ///< in the training set
  double loss = 0;            ///< of the last step
  std::uint64_t losses = 0;   ///< losses_hash() over all steps
  std::optional<BestEvaluation> best;
  /// The step after which the optimizer's state began; steps of its rule count from it. Negative: with servers it has
  /// made several updates in a step.
  std::int64_t optimizer_after = 0;
  PlateauState plateau;   ///< of the evaluations before the step's own, which comes behind it
  PlateauState stopping;  ///< the same of early stopping, of the value of `watched`, negated where more is better
  std::string watched;    ///< train.early_stopping.watch; empty: there is none
  /// numerics_of() the config, and kDataArithmetic where there is one.
  std::vector<std::pair<std::string, std::string>> numerics;
  Environment environment;
  /// What parts of the run were gone on with knowingly: "after step 100: seed: 2 instead of 1".
  std::vector<std::string> changes;
  std::optional<DataRecord> data;  ///< of the checkpoint's data.json: not in to_json()

  std::optional<std::string> numeric(const std::string& key) const;  ///< of the numerics
  bool records(const std::string& key) const { return numeric(key).has_value(); }
  std::string to_json() const;
  /// Throws CheckpointError naming `file`.
  static TrainerState from_json(const std::string& text, const std::string& file);
};

/// Throws CheckpointError.
TrainerState state_of(const CheckpointStore& store);

/// The hash over a run's losses, one after the other: starts at 0.
std::uint64_t losses_hash(std::uint64_t before, double loss);

/// Every key of a config that decides bits, with its value: ("train.batch", "32"), defaults filled in. Left out are
/// stages, schedule, placement, devices, evaluation, logs, the run folder, and how long to train.
std::vector<std::pair<std::string, std::string>> numerics_of(const Config& config);

/// What a checkpoint is wanted for, and what may differ from it.
struct ResumeRules {
  /// Keys, each with all that is below it, in which the config or the data knowingly differ: "train.batch", "data".
  std::vector<std::string> changes = {};
  bool evaluates = false;   ///< nothing is trained: only what the evaluation depends on counts
  std::string misfit = {};  ///< why the checkpoint's weights do not fit the model; empty: they do
  bool averaged = false;    ///< with evaluates: the averages of the weights (train.ema) in their place
};

struct ResumeFindings {
  std::vector<std::string> changed = {};  ///< "train.batch: 8 instead of 10": what the rules let through
  std::vector<std::string> notes = {};    ///< changes that are none, for the log
  std::string warning = {};               ///< of the evaluation set; empty: none
};

/// Throws ConfigError at the first key with which `config` would not go on as the checkpoint's run would have, with the
/// changes to go on all the same. `fresh`: what a run that begins now would record.
ResumeFindings check_resumable(const Config& config, const TrainerState& fresh, const TrainerState& state,
                               const std::string& checkpoint, const ResumeRules& rules = {});

/// "isa avx2 instead of avx512, operator.matmul 7eb1835b instead of 1d0c4fe2, ..." when machine, libraries or what
/// their operators compute are others, so that bits may differ; else empty. What an older checkpoint lacks is not
/// compared.
std::string environment_difference(const TrainerState& state, const Environment& here);

}  // namespace lockstep
