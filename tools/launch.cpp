// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "runtime/session/launch_job.hpp"
#include "runtime/session/process.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

/// The config that the ranks will use, read as they read it. So their mistakes are found here first.
Config config_of(const std::vector<std::string>& command) {
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
  return source.load().config;
}

struct HostFlags {
  std::string hosts, file;
};

/// What does not go together.
void check(const LaunchOptions& options, const HostFlags& flags) {
  if (options.shrink && options.restarts == 0)
    throw UserError(
        "launch: got --shrink without --restarts, expected how often a job that failed may be started "
        "again, such as --restarts 3");
  if (options.shrink && options.ranks_after_restart > 0)
    throw UserError(concat("launch: got --shrink and --ranks-after-restart ", options.ranks_after_restart,
                           ", expected one of them: --shrink finds out itself how many ranks are left"));
  if (!flags.hosts.empty() && !flags.file.empty())
    throw UserError("launch: got --hosts and --hostfile, expected one of them");
  const std::vector<std::string> launcher = words_of(options.mpiexec);
  const std::string in_mpiexec = host_flag_of(launcher);
  if (!in_mpiexec.empty() && (options.shrink || !options.hosts.empty()))
    throw UserError(concat("launch: got ", in_mpiexec, " in --mpiexec '", options.mpiexec,
                           "', expected the hosts in launch's own --hosts or --hostfile",
                           options.shrink ? ": --shrink has to know them" : ": mpiexec cannot be given both"));
  if (options.hosts.empty()) return;
  if (!launcher.empty() && std::filesystem::path(launcher.front()).filename() == "srun")
    throw UserError(
        "launch: got --hosts or --hostfile with srun, which knows the hosts of its allocation; leave them "
        "out, or take mpiexec");
  const int slots = slots_of(options.hosts), most = std::max(options.ranks, options.ranks_after_restart);
  if (slots < most)
    throw UserError(concat("launch: got ", most, " ranks on ", text_of(options.hosts), ", which has room for ", slots,
                           "; the number behind a colon says how many ranks a host gets: ", options.hosts.front().name,
                           ":", options.hosts.front().slots + most - slots));
}

}  // namespace

void add_launch(CLI::App& app, Command& command) {
  CLI::App* verb =
      app.add_subcommand("launch", "Start ranks with mpiexec; say what happened when they fail; restart them");
  auto options = std::make_shared<LaunchOptions>();
  verb->add_option("-n,--ranks", options->ranks, "Ranks to start")->required()->check(CLI::Range(1, 65536));
  verb->add_option("--restarts", options->restarts, "Times to restart a job that failed, from its last good checkpoint")
      ->check(CLI::Range(0, 1000000));
  verb->add_flag("--shrink", options->shrink,
                 "Restart without the rank that was killed, and without hosts that do not answer: on the ranks that "
                 "are left, with as many replicas as fit");
  verb->add_option("--ranks-after-restart", options->ranks_after_restart,
                   "Fewer (or more) ranks from the first restart on, instead of --shrink")
      ->check(CLI::Range(1, 65536));
  auto flags = std::make_shared<HostFlags>();
  verb->add_option("--hosts", flags->hosts, "Hosts to start ranks on, and how many on each: node1:4,node2:4");
  verb->add_option("--hostfile", flags->file, "The same from a file, a host on a line: node1:4, or node1 slots=4");
  verb->add_option("--mpiexec", options->mpiexec, "The launcher, with its own flags if it needs any")
      ->capture_default_str();
  verb->prefix_command();
  verb->footer(
      "What stands behind these is the command of every rank; train's own flags go there.\n"
      "Exit codes: those of train; 4 when a rank was lost. A mistake in the input (2) is never tried again.\n"
      "Examples:\n"
      "  lockstep launch -n 2 --restarts 3 train configs/quickstart.yaml --set checkpoint.every=50\n"
      "  lockstep launch -n 4 --restarts 3 --shrink train configs/replicas.yaml --set checkpoint.every=10");
  verb->callback([verb, options, flags, &command] {
    options->command = verb->remaining();
    command = [options, flags] {
      if (!flags->hosts.empty()) options->hosts = read_hosts(flags->hosts);
      if (!flags->file.empty() && flags->hosts.empty()) options->hosts = read_hostfile(flags->file);
      check(*options, *flags);
      take_job(*options, config_of(options->command));
      return launch(*options);
    };
  });
}

}  // namespace lockstep
