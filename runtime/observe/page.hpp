// SPDX-License-Identifier: Apache-2.0
//
// One self-contained HTML page about a run or a simulation: the measured and the simulated timeline one above the
// other, drawn by the same function on the same scale of time; how each worker spent its time; messages, memory, loss.
// It loads nothing, and without JavaScript all but zooming and pointing works. The frame is page.html, which is
// compiled in.
#pragma once

#include <string>

#include "runtime/observe/metrics.hpp"
#include "runtime/observe/run_timeline.hpp"

namespace lockstep {

std::string html_page(const RunTimeline& timeline, const RunMetrics& metrics);

}  // namespace lockstep
