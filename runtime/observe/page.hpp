// SPDX-License-Identifier: Apache-2.0
//
// One self-contained HTML page about a run or a simulation: the measured and the simulated timeline one above the
// other, drawn by the same function on the same scale of time; how each worker spent its time; messages, memory, loss.
// It loads nothing, and without JavaScript all but zooming and pointing works. The frame is page.html, which is
// compiled in.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/observe/run_timeline.hpp"

namespace lockstep {

/// From the metrics of a run: what is known of all its steps. Everything may be missing.
struct RunMetrics {
  std::vector<std::pair<std::int64_t, double>> losses, eval_losses;  ///< step, loss
  std::vector<double> step_ms, bubbles;                              ///< by training step
  std::vector<double> peak_bytes;                                    ///< by worker
};

/// Reads metrics.jsonl; an unfinished last line is left out. Throws UserError "`file`: ..." when a line is no metric.
RunMetrics metrics_from_lines(const std::string& text, const std::string& file);

std::string html_page(const RunTimeline& timeline, const RunMetrics& metrics);

}  // namespace lockstep
