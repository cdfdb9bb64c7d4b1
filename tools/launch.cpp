// SPDX-License-Identifier: Apache-2.0
//
// `lockstep why`, and `lockstep launch`: mpiexec with a memory. It starts the ranks, passes signals on, says what
// happened when a job fails, and starts it again from its last good checkpoint.
//
// mpiexec is a child in a process group of its own: a Ctrl-C, or a terminal that hangs up, reaches us alone, and is
// passed on.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <sstream>

#include "runtime/checkpoint/manifest.hpp"
#include "runtime/host/launch_listener.hpp"
#include "runtime/host/launcher_terminal.hpp"
#include "runtime/host/rank_watch.hpp"
#include "runtime/host/stop_signals.hpp"
#include "runtime/observe/story.hpp"
#include "runtime/session/process.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

std::string story_text(const Story& story, const std::string& run_folder) {
  const bool over = story.end == Story::End::failed || story.end == Story::End::killed;
  return text_of(story, over ? latest_good_checkpoint(run_folder).path : "");
}

int why(const std::string& run_folder) {
  std::cout << story_text(story_of(run_folder), run_folder) << std::flush;
  return 0;
}

struct LaunchOptions {
  int ranks = 1, restarts = 0, ranks_after_restart = 0;
  std::string mpiexec = "mpiexec";
  std::vector<std::string> command;  // train CONFIG ...
};

std::atomic<pid_t> launcher_pid{0};

/// The ranks stop in the same way for all of them; mpiexec dies of HUP, and kills the ranks at a second INT.
void pass_on(int number) {
  if (launcher_pid > 0) kill(launcher_pid, number == SIGUSR1 ? SIGUSR1 : SIGTERM);
}

struct Ended {
  int code = 0;  ///< as of a shell: 128 + signal when mpiexec itself was killed
  RankEnds ranks;
};

std::string this_program() {
  std::error_code failure;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", failure);
  if (failure) throw Error(concat("cannot find this program: ", failure.message()));
  return path.string();
}

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw Error(concat("pipe: ", std::strerror(errno)));
    read = ends[0];
    write = ends[1];
  }
};

pid_t fork_or_throw() {
  const pid_t child = fork();
  if (child < 0) throw Error(concat("fork: ", std::strerror(errno)));
  return child;
}

/// Waits for a byte: false when the other end was closed without one.
bool is_told(const Pipe& pipe) {
  close(pipe.write);
  char byte;
  ssize_t got;
  while ((got = read(pipe.read, &byte, 1)) < 0 && errno == EINTR) {
  }
  return got == 1;
}

void tell(Pipe& pipe) {
  [[maybe_unused]] const ssize_t written = write(pipe.write, "", 1);
  close(pipe.write);
  close(pipe.read);
}

[[noreturn]] void become(const std::vector<std::string>& line, const Pipe& may_begin, const Pipe& all_is_well,
                         int output, int error_output) {
  setpgid(0, 0);
  // main() ignores SIGPIPE; the others would be taken for ours, and lost.
  for (const int number : {SIGPIPE, SIGTERM, SIGINT, SIGUSR1}) signal(number, SIG_DFL);
  close(all_is_well.write);
  if (!is_told(may_begin)) _exit(1);
  dup2(output, STDOUT_FILENO);
  dup2(error_output, STDERR_FILENO);
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, STDIN_FILENO);
  std::vector<char*> arguments;
  for (const std::string& argument : line) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  const std::string message = concat("cannot run ", line[0], ": ", std::strerror(errno), "\n");
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, message.data(), message.size());
  _exit(127);
}

/// Outlives us, should we be killed: then it ends mpiexec's process group, first as a user would (a second TERM makes
/// ranks leave at once), and mpiexec ends the ranks, on other hosts too. PR_SET_PDEATHSIG could give one signal to one
/// process: not every launcher's ranks end when it is killed, and it may be a script that has started another. What
/// mpiexec has to say meanwhile goes into pipes that stay open here: an end of file could end it before its ranks.
[[noreturn]] void guard(pid_t group, const Pipe& may_begin, const Pipe& all_is_well) {
  constexpr unsigned kPause_s = 2;
  close(may_begin.write);
  setpgid(0, 0);
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) signal(number, SIG_IGN);
  for (const int file : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) close(file);
  if (!is_told(all_is_well))
    for (const int number : {SIGTERM, SIGTERM, SIGKILL}) {
      if (kill(-group, number) != 0) break;
      sleep(kPause_s);
    }
  _exit(0);
}

/// Until mpiexec has closed its outputs and the ranks of this host have ended: when mpiexec is killed a moment later.
void listen(LaunchListener& output, LaunchListener& errors, RankWatch& watch) {
  using Clock = std::chrono::steady_clock;
  constexpr int kLook_ms = 100, kMostLooks = 50;
  Clock::time_point next_look = Clock::now();
  while (!output.at_end() || !errors.at_end()) {
    if (Clock::now() >= next_look) {
      watch.look();
      next_look = Clock::now() + std::chrono::milliseconds(kLook_ms);
    }
    std::array<pollfd, 3> ends = {pollfd{output.at_end() ? -1 : output.input(), POLLIN, 0},
                                  pollfd{errors.at_end() ? -1 : errors.input(), POLLIN, 0},
                                  pollfd{watch.descriptor(), POLLIN, 0}};
    if (poll(ends.data(), ends.size(), watch.is_looking() ? kLook_ms : -1) < 0) continue;  // a signal
    if (ends[2].revents != 0) watch.hear();
    if (ends[0].revents != 0) output.listen();
    if (ends[1].revents != 0) errors.listen();
  }
  watch.hear();
  for (int looks = 0; !watch.all_ended() && looks < kMostLooks; ++looks) {
    pollfd ended{watch.descriptor(), POLLIN, 0};
    poll(&ended, 1, kLook_ms);
    watch.hear();
  }
}

Ended run_mpiexec(const std::vector<std::string>& line, const std::string& run_folder, Console& console) {
  RankWatch watch(run_folder, this_program());
  Pipe may_begin, all_is_well, output, errors;
  const pid_t child = fork_or_throw();
  if (child == 0) become(line, may_begin, all_is_well, output.write, errors.write);
  setpgid(child, child);
  close(output.write);
  close(errors.write);
  const pid_t guardian = fork_or_throw();
  if (guardian == 0) guard(child, may_begin, all_is_well);
  launcher_pid = child;
  if (StopSignals::asked()) pass_on(SIGTERM);  // it came before there was anybody to pass it on to
  tell(may_begin);
  LaunchListener hears_output(output.read, std::cout, console), hears_errors(errors.read, std::cerr, console);
  listen(hears_output, hears_errors, watch);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  launcher_pid = 0;
  tell(all_is_well);
  while (waitpid(guardian, nullptr, 0) < 0 && errno == EINTR) {
  }
  console.settle();
  // When mpiexec is killed its proxies end the ranks: in which order says nothing.
  if (WIFSIGNALED(status)) return {128 + WTERMSIG(status), {}};
  return {WEXITSTATUS(status), ends_of(watch.ended(), hears_output, hears_errors)};
}

/// The run folder that the ranks will use: from the config, read as they read it. So their mistakes are found here
/// first.
std::string run_folder_of(const std::vector<std::string>& command) {
  CLI::App app;
  std::function<int()> not_run;
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

/// `--resume X` of the first start gives way to `--resume auto`.
std::vector<std::string> resuming(const std::vector<std::string>& command) {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < command.size(); ++i) {
    if (command[i] == "--resume") {
      ++i;
      continue;
    }
    if (!command[i].starts_with("--resume=")) result.push_back(command[i]);
  }
  result.insert(result.end(), {"--resume", "auto"});
  return result;
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

std::vector<std::string> line_of(const LaunchOptions& options, bool restarted) {
  std::vector<std::string> line = words_of(options.mpiexec);
  const int ranks = restarted && options.ranks_after_restart > 0 ? options.ranks_after_restart : options.ranks;
  line.insert(line.end(), {"-n", std::to_string(ranks), this_program()});
  const std::vector<std::string> command = restarted ? resuming(options.command) : options.command;
  line.insert(line.end(), command.begin(), command.end());
  return line;
}

/// What the launcher's code means: a rank that a signal ended is a lost rank.
int exit_code_of(const Ended& ended) {
  constexpr int kSecondSignal = 128;
  const bool ours = ended.code == 0 || ended.code == 1 || ended.code == 2 || ended.code == 4 || ended.code == 127;
  return ours || ended.code > kSecondSignal ? ended.code : static_cast<int>(ExitCode::watchdog);
}

int launch(const LaunchOptions& options) {
  if (options.command.empty() || options.command[0] != "train")
    throw UserError(concat("launch: got ", options.command.empty() ? "nothing" : "'" + options.command[0] + "'",
                           " to run, expected train CONFIG ..., such as: lockstep launch -n 2 train x.yaml"));
  const std::string run_folder = run_folder_of(options.command);
  StopSignals signals(pass_on);
  signals.ask(pass_on);
  Console console;
  if (console.columns() > 0 && passes_on(words_of(options.mpiexec)))
    setenv(kColumnsVariable, std::to_string(console.columns()).c_str(), 1);
  else
    unsetenv(kColumnsVariable);
  for (int restart = 0;; ++restart) {
    const Ended ended = run_mpiexec(line_of(options, restart > 0), run_folder, console);
    const int code = exit_code_of(ended);
    if (code == 0 || code == static_cast<int>(ExitCode::user_input) || code == 127) return code;
    const bool by_ours = StopSignals::asked() && (ended.code == SIGTERM || ended.code == SIGUSR1);
    if (by_ours) return 128 + ended.code;  // the ranks could not be asked yet
    if (StopSignals::insisted() != 0) return 128 + StopSignals::insisted();
    remember(run_folder, ended.ranks);
    Story story;
    try {
      story = story_of(run_folder);
    } catch (const UserError& error) {
      std::cerr << "lockstep: launch: mpiexec ended with code " << ended.code << " before training: " << error.what()
                << std::endl;
      return code;
    }
    std::cerr << "lockstep: launch: mpiexec ended with code " << ended.code << "\n"
              << story_text(story, run_folder) << std::flush;
    const bool in_order = story.end == Story::End::done;  // such as a loss that was not finite: it would be again
    if (StopSignals::asked() || in_order || restart == options.restarts) return code;
    std::cerr << "lockstep: launch: restart " << restart + 1 << " of " << options.restarts
              << (options.ranks_after_restart > 0 ? concat(" with ", options.ranks_after_restart, " ranks") : "")
              << std::endl;
  }
}

}  // namespace

void add_why(CLI::App& app, Command& command) {
  CLI::App* verb =
      app.add_subcommand("why", "Say what happened to a run: who died first, doing what, who waited for whom");
  auto folder = std::make_shared<std::string>();
  verb->add_option("run_folder", *folder, "run_dir of the job; of a running one: what each worker does now")
      ->required();
  verb->footer("Example:\n  lockstep why runs/quickstart");
  verb->callback([folder, &command] { command = [folder] { return why(*folder); }; });
}

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
    command = [options] { return launch(*options); };
  });
}

}  // namespace lockstep
