// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <iostream>

#include "runtime/session/verification.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

struct VerifyOptions {
  ConfigSource source;
  std::int64_t steps = 3;
};

int run_verify(const VerifyOptions& options) {
  return run_ranks([&](Process& process) {
    const Verdict verdict = verify(process, options.source, options.steps);
    if (process.is_root()) {
      std::cout << verdict.text << std::endl;
      if (!verdict.not_finite.empty()) std::cerr << "lockstep: but " << verdict.not_finite << std::endl;
    }
    return static_cast<int>(verdict.identical && verdict.not_finite.empty() ? ExitCode::done : ExitCode::fault);
  });
}

}  // namespace

void add_verify(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("verify", "Train as configured and on one worker, and compare bit by bit");
  auto options = std::make_shared<VerifyOptions>();
  add_config_flags(*verb, options->source);
  add_plan_flag(*verb, options->source);
  verb->add_option("--steps", options->steps, "Optimizer steps to compare")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000'000}))
      ->capture_default_str();
  verb->footer(
      "Names the first tensor that differs and leaves with exit code 1.\n"
      "Examples:\n"
      "  lockstep verify configs/quickstart.yaml\n"
      "  mpirun -n 2 lockstep verify configs/quickstart.yaml --steps 5");
  verb->callback([options, &command] { command = [options] { return run_verify(*options); }; });
}

}  // namespace lockstep
