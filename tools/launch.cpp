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
#include <cstring>
#include <filesystem>
#include <iostream>
#include <regex>
#include <sstream>
#include <utility>

#include "runtime/checkpoint/manifest.hpp"
#include "tools/command.hpp"
#include "tools/stop_signals.hpp"
#include "tools/why.hpp"

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

/// Removes what hydra and MPI_Abort say when a rank ends badly, which tells nobody anything, and reads from it who did.
class Listener {
 public:
  Listener(int input, std::ostream& output) : input_(input), output_(output) {}
  ~Listener() { close(input_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int input() const { return input_; }
  bool at_end() const { return at_end_; }
  const LauncherWord& word() const { return word_; }

  /// Something can be read.
  void listen() {
    char buffer[4096];
    const ssize_t got = read(input_, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) return;
    at_end_ = got <= 0;
    if (got > 0) waiting_.append(buffer, static_cast<std::size_t>(got));
    if (at_end_ && !waiting_.empty()) waiting_ += '\n';
    for (std::size_t end; (end = waiting_.find('\n')) != std::string::npos; waiting_.erase(0, end + 1))
      hear(waiting_.substr(0, end));
  }

 private:
  void hear(const std::string& line) {
    static const std::regex first(R"(=\s+PID (\d+) RUNNING AT (\S+))"), code(R"(=\s+EXIT CODE: (\d+))");
    std::smatch match;
    if (line.starts_with("=====") && line.find_first_not_of('=') == std::string::npos) {
      in_block_ = !in_block_;
      return;
    }
    if (in_block_) {
      empty_lines_ = 0;
      if (std::regex_search(line, match, first)) {
        word_.pid = std::stoi(match[1]);
        word_.host = match[2];
      }
      if (std::regex_search(line, match, code)) word_.code = std::stoi(match[1]);
      return;
    }
    if (line.starts_with("YOUR APPLICATION TERMINATED WITH THE EXIT STRING") ||
        line.starts_with("This typically refers to") || line.starts_with("Please see the FAQ page") ||
        (line.starts_with("Abort(") && line.find("MPI_Abort") != std::string::npos))
      return;
    if (line.empty()) {  // hydra's block has one before it
      ++empty_lines_;
      return;
    }
    output_ << std::string(static_cast<std::size_t>(std::exchange(empty_lines_, 0)), '\n') + line + "\n" << std::flush;
  }

  int input_;
  std::ostream& output_;
  std::string waiting_;  // the beginning of a line
  int empty_lines_ = 0;
  bool at_end_ = false, in_block_ = false;
  LauncherWord word_;
};

struct Ended {
  int code = 0;  ///< as of a shell: 128 + signal when mpiexec itself was killed
  LauncherWord word;
};

std::string this_program() {
  std::error_code failure;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", failure);
  if (failure) throw Error(concat("cannot find this program: ", failure.message()));
  return path.string();
}

[[noreturn]] void become(const std::vector<std::string>& line, int output, int error_output) {
  setpgid(0, 0);
  signal(SIGPIPE, SIG_DFL);  // which main() ignores
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

Ended run_mpiexec(const std::vector<std::string>& line) {
  int output[2], errors[2];
  if (pipe2(output, O_CLOEXEC) != 0 || pipe2(errors, O_CLOEXEC) != 0)
    throw Error(concat("pipe: ", std::strerror(errno)));
  const pid_t child = fork();
  if (child < 0) throw Error(concat("fork: ", std::strerror(errno)));
  if (child == 0) become(line, output[1], errors[1]);
  setpgid(child, child);
  launcher_pid = child;
  close(output[1]);
  close(errors[1]);
  Listener hears_output(output[0], std::cout), hears_errors(errors[0], std::cerr);
  while (!hears_output.at_end() || !hears_errors.at_end()) {
    std::array<pollfd, 2> ends{};
    std::size_t open_ends = 0;
    for (Listener* listener : {&hears_output, &hears_errors})
      if (!listener->at_end()) ends[open_ends++] = {listener->input(), POLLIN, 0};
    if (poll(ends.data(), open_ends, -1) < 0) continue;  // a signal
    for (Listener* listener : {&hears_output, &hears_errors})
      for (std::size_t i = 0; i < open_ends; ++i)
        if (ends[i].fd == listener->input() && ends[i].revents != 0) listener->listen();
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  launcher_pid = 0;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          hears_output.word().pid != 0 ? hears_output.word() : hears_errors.word()};
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

std::vector<std::string> line_of(const LaunchOptions& options, bool restarted) {
  std::vector<std::string> line;
  std::istringstream launcher(options.mpiexec);
  for (std::string word; launcher >> word;) line.push_back(word);
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
  for (int restart = 0;; ++restart) {
    const Ended ended = run_mpiexec(line_of(options, restart > 0));
    const int code = exit_code_of(ended);
    if (code == 0 || code == static_cast<int>(ExitCode::user_input) || code == 127) return code;
    const bool by_ours = StopSignals::asked() && (ended.code == SIGTERM || ended.code == SIGUSR1);
    if (by_ours) return 128 + ended.code;  // the ranks could not be asked yet
    if (StopSignals::insisted() != 0) return 128 + StopSignals::insisted();
    if (ended.word.pid != 0) remember(run_folder, ended.word);
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

void add_why(CLI::App& app, std::function<int()>& command) {
  CLI::App* verb =
      app.add_subcommand("why", "Say what happened to a run: who died first, doing what, who waited for whom");
  auto folder = std::make_shared<std::string>();
  verb->add_option("run_folder", *folder, "run_dir of the job; of a running one: what each worker does now")
      ->required();
  verb->footer("Example:\n  lockstep why runs/quickstart");
  verb->callback([folder, &command] { command = [folder] { return why(*folder); }; });
}

void add_launch(CLI::App& app, std::function<int()>& command) {
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
