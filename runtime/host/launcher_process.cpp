// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/launcher_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iostream>

#include "runtime/base/error.hpp"
#include "runtime/host/launch_listener.hpp"
#include "runtime/host/rank_watch.hpp"
#include "runtime/host/stop_signals.hpp"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;

std::atomic<pid_t> launcher_pid{0};

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
  char byte = 0;
  ssize_t got = 0;
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

/// A launcher that stays when its job has failed and the ranks of this host are gone: it waits for a host that does not
/// answer any more. It is asked to go, twice, and then killed; what it has to say is heard meanwhile.
class Overdue {
 public:
  Overdue(pid_t group, const std::string& run_folder, const RankWatch& watch)
      : group_(group), run_folder_(run_folder), watch_(watch) {}

  void look() {
    const bool failed = watch_.has_started() && watch_.all_ended() && job_failed();
    if (!failed) return;
    const Clock::time_point now = Clock::now();
    if (next_ == Clock::time_point()) next_ = now + kPatience;
    if (now < next_ || sent_ == kSignals.size()) return;
    kill(-group_, kSignals[sent_++]);
    next_ = now + kPause;
  }
  /// It was made to go.
  bool ended_it() const { return sent_ > 0; }
  /// It was killed, and yet somebody holds its outputs open.
  bool gives_up() const { return sent_ == kSignals.size() && Clock::now() >= next_; }

 private:
  static constexpr std::chrono::seconds kPatience{10}, kPause{2};
  static constexpr std::array<int, 3> kSignals = {SIGTERM, SIGTERM, SIGKILL};

  bool job_failed() const { return watch_.has_failed() || read_first_failure(run_folder_).code != 0; }

  pid_t group_;
  const std::string& run_folder_;
  const RankWatch& watch_;
  Clock::time_point next_{};  // when the next signal is due
  std::size_t sent_ = 0;
};

/// Until mpiexec has closed its outputs and the ranks of this host have ended: when mpiexec is killed a moment later.
void listen(LaunchListener& output, LaunchListener& errors, RankWatch& watch, Overdue& overdue) {
  constexpr int kLook_ms = 100, kSecond_ms = 1000, kMostLooks = 50;
  Clock::time_point next_look = Clock::now();
  while ((!output.at_end() || !errors.at_end()) && !overdue.gives_up()) {
    if (Clock::now() >= next_look) {
      watch.look();
      next_look = Clock::now() + std::chrono::milliseconds(kLook_ms);
    }
    overdue.look();
    std::array<pollfd, 3> ends = {pollfd{output.at_end() ? -1 : output.input(), POLLIN, 0},
                                  pollfd{errors.at_end() ? -1 : errors.input(), POLLIN, 0},
                                  pollfd{watch.descriptor(), POLLIN, 0}};
    if (poll(ends.data(), ends.size(), watch.is_looking() ? kLook_ms : kSecond_ms) < 0) continue;  // a signal
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

/// As of a shell: 128 + signal when it was killed itself.
int code_of(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

void signal_launcher(int number) {
  if (launcher_pid > 0) kill(launcher_pid, number == SIGUSR1 ? SIGUSR1 : SIGTERM);
}

LauncherEnd run_launcher(const std::vector<std::string>& line, const std::string& run_folder,
                         const std::string& program, Console& console) {
  RankWatch watch(run_folder, program);
  Pipe may_begin, all_is_well, output, errors;
  const pid_t child = fork_or_throw();
  if (child == 0) become(line, may_begin, all_is_well, output.write, errors.write);
  setpgid(child, child);
  close(output.write);
  close(errors.write);
  const pid_t guardian = fork_or_throw();
  if (guardian == 0) guard(child, may_begin, all_is_well);
  launcher_pid = child;
  if (StopSignals::asked()) signal_launcher(SIGTERM);  // it came before there was anybody to pass it on to
  tell(may_begin);
  LaunchListener hears_output(output.read, std::cout, console), hears_errors(errors.read, std::cerr, console);
  Overdue overdue(child, run_folder, watch);
  listen(hears_output, hears_errors, watch, overdue);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  launcher_pid = 0;
  tell(all_is_well);
  while (waitpid(guardian, nullptr, 0) < 0 && errno == EINTR) {
  }
  console.settle();
  LauncherEnd end;
  end.code = code_of(status);
  end.ranks_started = watch.has_started();
  end.was_overdue = overdue.ended_it();
  // When mpiexec is killed its proxies end the ranks: in which order says nothing. When we do it they have ended.
  if (!WIFSIGNALED(status) || end.was_overdue) end.ranks = ends_of(watch.ended(), hears_output, hears_errors);
  return end;
}

}  // namespace lockstep
