// SPDX-License-Identifier: Apache-2.0
//
// The `lockstep` command. Verbs live in files of their own; here are only the parser and the end of every error.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <iostream>

#include "runtime/base/text.hpp"
#include "runtime/host/standard_files.hpp"
#include "runtime/session/process.hpp"
#include "runtime/training/environment.hpp"
#include "tools/command.hpp"
#include "tools/hangup.hpp"

namespace {

int report(const std::string& message, lockstep::ExitCode code) {
  std::cerr << "lockstep: " << message << std::endl;
  return static_cast<int>(code);
}

// A command line that makes no sense: under mpirun said once, and all ranks leave together.
[[noreturn]] void refuse(const std::string& message) {
  lockstep::Process process;
  process.together([&] { throw lockstep::UserError(message); });
  std::abort();  // together() throws
}

// CLI11 2.1 does not offer the nearest name.
void check_verb(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  if (std::find(verbs.begin(), verbs.end(), argv[1]) != verbs.end()) return;
  refuse(lockstep::concat("there is no verb '", argv[1], "'; there are: ", lockstep::join(verbs),
                          lockstep::did_you_mean(argv[1], verbs), "; see lockstep --help"));
}

/// A flag without a value, such as of a shell variable that is not set, is no flag that was left out.
void check_values(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options())
    for (const std::string& value : option->results())
      if (value.empty())
        refuse(lockstep::concat(option->get_name(), ": got nothing, expected a value; leave it out instead"));
  for (const CLI::App* verb : app.get_subcommands()) check_values(*verb);
}

int parse_and_run(CLI::App& app, int argc, char** argv, const lockstep::Command& command) {
  try {
    app.parse(argc, argv);
    check_values(app);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    const auto verbs = app.get_subcommands();
    const std::string verb = verbs.empty() ? "" : verbs.front()->get_name() + " ";
    refuse(lockstep::concat(error.what(), "; see lockstep ", verb, "--help"));
  }
  return command();
}

int run(int argc, char** argv) {
  CLI::App app{"Lockstep: pipeline model-parallel training. Try: lockstep train configs/quickstart.yaml", "lockstep"};
  app.set_version_flag("-V,--version",
                       [] { return "lockstep " LOCKSTEP_VERSION ", LibTorch " + lockstep::loaded_libtorch(); });
  app.set_help_all_flag("--help-all", "Print the help of all subcommands: lockstep --help-all > lockstep.txt");
  app.require_subcommand(1);
  lockstep::Command command;
  lockstep::add_train(app, command);
  lockstep::add_verify(app, command);
  lockstep::add_profile(app, command);
  lockstep::add_plan(app, command);
  lockstep::add_simulate(app, command);
  lockstep::add_report(app, command);
  lockstep::add_checkpoint(app, command);
  lockstep::add_export(app, command);
  lockstep::add_eval(app, command);
  lockstep::add_predict(app, command);
  lockstep::add_check(app, command);
  lockstep::add_data(app, command);
  lockstep::add_list(app, command);
  lockstep::add_launch(app, command);
  lockstep::add_why(app, command);
  lockstep::add_doctor(app, command);
  try {
    check_verb(app, argc, argv);
    return parse_and_run(app, argc, argv, command);
  } catch (const lockstep::AlreadyReported& reported) {
    return reported.exit_code;
  } catch (const lockstep::Error& error) {
    return report(error.what(), error.exit_code());
  } catch (const std::exception& error) {
    return report(lockstep::reason_of(error), lockstep::ExitCode::fault);
  }
}

/// The exit code, now that all results should have been written.
int end(int code, int failure) {
  if (failure == 0) return code;
  if (failure == EPIPE) {  // `lockstep list | head -1`: as any command ends whose reader has enough
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
  }
  const int failed =
      report(lockstep::concat("cannot write to standard output: ", std::strerror(failure)), lockstep::ExitCode::fault);
  return code == 0 ? failed : code;
}

}  // namespace

int main(int argc, char** argv) {
  lockstep::open_standard_files();
  lockstep::take_hangup_back();
  signal(SIGPIPE, SIG_IGN);  // a console that is lost ends no job
  lockstep::StandardOutput output;
  const int code = run(argc, argv);
  const bool is_console = argc > 1 && std::strcmp(argv[1], "launch") == 0;  // what it prints its ranks have said
  return is_console ? code : end(code, output.finish());
}
