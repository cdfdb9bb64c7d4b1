// SPDX-License-Identifier: Apache-2.0
//
// An assembly at work: what the engine is given of it. Whatever a job does (training, measuring, an evaluation) is a
// decider's business.
#pragma once

#include <memory>
#include <string>

#include "runtime/training/initial_weights.hpp"

namespace lockstep {

/// References outlive the run.
struct RunOptions {
  Observer* observer = nullptr;                  ///< told of every result, on a worker's thread
  const std::atomic<bool>* signalled = nullptr;  ///< raised from outside: some rank is asked to stop
  bool record_hashes = false;
  bool measure_products = false;  ///< how fast each worker multiplies matrices: WorkerReport::product_rate
  std::string checkpoints = {};   ///< the folder where checkpoints go; empty: none is written
  RecordRange record = {};        ///< steps whose timeline is recorded: JobOutcome::recorded
  std::int64_t dump_step = 0;     ///< whose activations and gradients go to `take_dump`, on the workers' threads
  TakeDump take_dump = {};
  std::string recorder_folder = {};  ///< where each worker's flight recorder goes; empty: nowhere. It exists
  WrapChannel wrap_channel = {};     ///< may be empty
  Log log = {};
};

struct RunStart {
  std::string checkpoint = {};                         ///< weights, buffers and optimizer state; empty: the beginning
  std::shared_ptr<const InitialWeights> initial = {};  ///< the beginning's weights; null: drawn
  bool averaged = false;                               ///< the averages of the weights in their place
  std::int64_t optimizer_after = 0;                    ///< TrainerState's
  bool optimizer_restarts = false;                     ///< there: the checkpoint's state of the optimizer is not read
  std::int64_t steps_before = 0;                       ///< TrainerState::step
  bool trains = true;                                  ///< false: it needs no optimizer, and none is read
  bool check_finite = true;  ///< look at every output and input gradient: names the first layer that breaks
};

/// `decider`, `feeder`: used where row 0 and stage 0 are. Blocking.
JobOutcome run_assembly(const Assembly& assembly, Decider& decider, Feeder& feeder, const RunStart& start = {},
                        const RunOptions& options = {});

/// How long the end of a failed job waits for a save that stands still.
std::chrono::milliseconds patience_of(const CommConfig& comm);

}  // namespace lockstep
