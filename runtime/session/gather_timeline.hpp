// SPDX-License-Identifier: Apache-2.0
//
// From the recordings of all ranks to one timeline on rank 0's clock.
#pragma once

#include <optional>

#include "runtime/observe/clocks.hpp"
#include "runtime/observe/run_timeline.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {

/// Which steps a run records: `flag` is the value of --trace-steps, "FIRST-LAST" or one number; empty: usual_range().
/// Throws UserError that names the flag.
RecordRange range_to_record(const std::string& flag, const Trainer& trainer);

class TimelineGatherer {
 public:
  /// Compares the clocks of the ranks. Collective.
  explicit TimelineGatherer(Process& process);
  /// Collective; rank 0 gets the timeline, if any step has been recorded whole on every worker.
  std::optional<RunTimeline> gather(Trainer& trainer, const JobOutcome& outcome, const RecordRange& range);

 private:
  Process& process_;
  std::vector<ClockOffset> offsets_;  // by rank: its clock - rank 0's
};

}  // namespace lockstep
