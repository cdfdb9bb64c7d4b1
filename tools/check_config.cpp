// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "runtime/base/text_table.hpp"
#include "runtime/session/config_check.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

const char* word_of(CheckFinding::Verdict verdict) {
  switch (verdict) {
    case CheckFinding::Verdict::fine: return "ok";
    case CheckFinding::Verdict::doubtful: return "doubt";
    case CheckFinding::Verdict::wrong: return "wrong";
  }
  return "";
}

int check(const ConfigSource& source) {
  return run_ranks([&](Process& process) {
    const std::vector<CheckFinding> findings = check_config(process, source);
    bool wrong = false;
    for (const CheckFinding& finding : findings) {
      wrong = wrong || finding.verdict == CheckFinding::Verdict::wrong;
      std::cout << word_of(finding.verdict) << "\t" << finding.topic << ": " << finding.text << "\n";
      if (!finding.advice.empty()) std::cout << "\t-> " << finding.advice << "\n";
    }
    std::cout << std::flush;
    return wrong ? static_cast<int>(ExitCode::fault) : 0;
  });
}

}  // namespace

void add_check(CLI::App& app, Command& command) {
  CLI::App* verb =
      app.add_subcommand("check", "Find what is wrong with a config: trains a few steps, and writes nothing");
  auto source = std::make_shared<ConfigSource>();
  add_config_flags(*verb, *source);
  add_plan_flag(*verb, *source);
  verb->footer(
      "Exit codes: 0 nothing is wrong (a doubt is nothing wrong), 1 something is.\n"
      "Example:\n  lockstep check configs/quickstart.yaml");
  verb->callback([source, &command] { command = [source] { return check(*source); }; });
}

}  // namespace lockstep
