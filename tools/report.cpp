// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <iostream>

#include "runtime/observe/run_report.hpp"
#include "tools/command.hpp"

namespace lockstep {

void add_report(CLI::App& app, Command& command) {
  const auto options = std::make_shared<ReportOptions>();
  CLI::App* verb = app.add_subcommand("report", "A page about a run: measured and simulated timeline, workers, loss");
  verb->add_option("run", options->folder, "The folder of the run")->required()->type_name("RUN_FOLDER");
  verb->add_option("-o,--output", options->output, "The page; default: report.html in the run folder")
      ->type_name("FILE");
  verb->add_option("--trace", options->trace, "Write a Chrome trace as well")->type_name("FILE");
  verb->footer(
      "Examples:\n"
      "  lockstep report runs/quickstart\n"
      "  lockstep report runs/quickstart -o page.html --trace trace.json");
  verb->callback([options, &command] { command = [options] { return report_command(*options, std::cout); }; });
}

}  // namespace lockstep
