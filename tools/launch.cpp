// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "runtime/session/launch_job.hpp"
#include "runtime/session/process.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

/// The run folder that the ranks will use: from the config, read as they read it. So their mistakes are found here
/// first.
std::string run_folder_of(const std::vector<std::string>& command) {
  if (command.empty() || command[0] != "train")
    throw UserError(concat("launch: got ", command.empty() ? "nothing" : "'" + command[0] + "'",
                           " to run, expected train CONFIG ..., such as: lockstep launch -n 2 train x.yaml"));
  CLI::App app;
  Command not_run;
  add_train(app, not_run);
  try {
    app.parse(std::vector<std::string>(command.rbegin(), command.rend()));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) throw AlreadyReported{app.exit(error)};  // --help
    throw UserError(concat(error.what(), "; see lockstep train --help"));
  }
  const CLI::App* verb = app.get_subcommand("train");
  const CLI::Option* overrides = verb->get_option("--set");
  const CLI::Option* plan = verb->get_option("--plan");
  ConfigSource source;
  source.path = verb->get_option("config")->as<std::string>();
  if (plan->count() > 0) source.plan = plan->as<std::string>();
  if (overrides->count() > 0) source.overrides = overrides->as<std::vector<std::string>>();
  return source.load().config.run_dir;
}

}  // namespace

void add_launch(CLI::App& app, Command& command) {
  CLI::App* verb =
      app.add_subcommand("launch", "Start ranks with mpiexec; say what happened when they fail; restart them");
  auto options = std::make_shared<LaunchOptions>();
  verb->add_option("-n,--ranks", options->ranks, "Ranks to start")->required()->check(CLI::Range(1, 65536));
  verb->add_option("--restarts", options->restarts, "Times to restart a job that failed, from its last good checkpoint")
      ->check(CLI::Range(0, 1000000));
  verb->add_option("--ranks-after-restart", options->ranks_after_restart, "Fewer (or more) ranks from then on")
      ->check(CLI::Range(1, 65536));
  verb->add_option("--mpiexec", options->mpiexec, "The launcher, with its own flags if it needs any")
      ->capture_default_str();
  verb->prefix_command();
  verb->footer(
      "What stands behind these is the command of every rank; train's own flags go there.\n"
      "Exit codes: those of train; 4 when a rank was lost. A mistake in the input (2) is never tried again.\n"
      "Example:\n"
      "  lockstep launch -n 2 --restarts 3 train configs/quickstart.yaml --set checkpoint.every=50");
  verb->callback([verb, options, &command] {
    options->command = verb->remaining();
    command = [options] {
      options->run_folder = run_folder_of(options->command);
      return launch(*options);
    };
  });
}

}  // namespace lockstep
