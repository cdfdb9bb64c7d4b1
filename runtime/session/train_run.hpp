// SPDX-License-Identifier: Apache-2.0
//
// A training run as `lockstep train` does it: with a run folder, checkpoints, logs, metrics, a timeline.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/observe/run_timeline.hpp"
#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {

/// As the flags of `lockstep train`.
struct TrainOptions {
  ConfigSource source;
  std::string resume = {};                ///< a checkpoint; "auto": the newest good one of the run folder; empty: none
  std::vector<std::string> changes = {};  ///< of what a resume compares, knowingly: "KEY=VALUE", "KEY", "data"
  std::string metrics = {};               ///< files; empty: in the run folder alone
  std::string fingerprint = {};           ///< likewise
  std::string trace = {};                 ///< a Chrome trace; empty: none
  std::string trace_steps = {};           ///< "FIRST-LAST" that trace and timeline show; empty: usual_range()
  std::int64_t dump_step = 0;             ///< of which activations and gradients are written: dump_folder(); 0: none
  bool replan = false;                    ///< move layers away from a slow worker at a checkpoint
};

/// Where train() writes what --dump-step asks for: a safetensors file per worker (runtime/engine/step_dump.hpp).
std::string dump_folder(const std::string& run_dir, std::int64_t step);

/// What became of a run. The same on every rank, but for the timeline.
struct TrainResult {
  int exit_code = 0;
  std::string message = {};                  ///< how it ended: the last line of the log
  std::int64_t step = 0;                     ///< the last one that was done
  double loss = 0;                           ///< of that step; 0 when this run trained none
  std::string checkpoint = {};               ///< the newest one of the run folder; empty: there is none
  std::optional<RunTimeline> timeline = {};  ///< rank 0 alone; none when the run ended before the steps to be recorded
};

/// Collective. A signal stops the run after its step. Throws AlreadyReported for what is found before it starts, and
/// what went wrong while it ran.
TrainResult train(Process& process, const TrainOptions& options);

}  // namespace lockstep
