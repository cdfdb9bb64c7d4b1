// SPDX-License-Identifier: Apache-2.0
//
// The drawn parts of a page. Private to page.cpp.
#pragma once

#include <string>

#include "runtime/observe/run_timeline.hpp"

namespace lockstep {

/// Text for HTML.
std::string escaped(const std::string& text);
double end_of(const Timeline& timeline);

/// `end_us`: of the scale that all of them share.
std::string timeline_section(const std::string& kind, const Timeline& timeline, const RunTimeline& all, double end_us);
std::string memory_section(const RunTimeline& all, double end_us);
std::string legend(const RunTimeline& all);

}  // namespace lockstep
