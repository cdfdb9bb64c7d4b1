// SPDX-License-Identifier: Apache-2.0
//
// Chrome's trace event format (JSON object form), for ui.perfetto.dev and chrome://tracing: a process "measured" and a
// process "simulated", a thread per worker, computes coloured by action with stage, micro-batch, step and layers as
// arguments, waits, an arrow from each compute to the computes of other workers that needed its result, and counters of
// tensor bytes. The format: "Trace Event Format" of the Chromium project.
#pragma once

#include <string>
#include <vector>

#include "runtime/observe/run_timeline.hpp"

namespace lockstep {

/// A result that crossed from one worker to another: two spans of the timeline's list.
struct Arrow {
  std::size_t from = 0, to = 0;
};
/// Who needed what is required_before(), as everywhere. Only between different workers and within a step.
std::vector<Arrow> arrows_of(const Timeline& timeline, const Program& program);

/// Events ascend by time.
std::string chrome_trace(const RunTimeline& timeline);

}  // namespace lockstep
