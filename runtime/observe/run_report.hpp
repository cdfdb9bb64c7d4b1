// SPDX-License-Identifier: Apache-2.0
//
// `lockstep report`: the page (and the trace) of a run that has ended, from what it left in its folder. Torch-free.
#pragma once

#include <iosfwd>
#include <string>

namespace lockstep {

struct ReportOptions {
  std::string folder;  ///< of the run, or its timeline.json
  std::string output;  ///< empty: report.html in the folder
  std::string trace;   ///< a Chrome trace as well; empty: none
};

/// Returns the exit code. Throws UserError when the folder is not there, holds no run, or the run no timeline.
int report_command(const ReportOptions& options, std::ostream& out);

}  // namespace lockstep
