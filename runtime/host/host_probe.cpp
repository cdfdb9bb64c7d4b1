// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/host_probe.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

using Clock = std::chrono::steady_clock;

struct Probe {
  pid_t group = 0;  // 0: it has ended
  std::string command;
  HostProblem problem;
};

[[noreturn]] void become(const std::vector<std::string>& line, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  for (const int number : {SIGPIPE, SIGTERM, SIGINT, SIGUSR1}) signal(number, SIG_DFL);
  const int nothing = open("/dev/null", O_RDWR);
  for (const int file : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(nothing, file);
  std::vector<char*> arguments;
  for (const std::string& argument : line) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  _exit(127);
}

Probe start(std::vector<std::string> line, const std::string& host) {
  line.insert(line.end(), {"-host", host, "-n", "1", "true"});
  Probe probe;
  probe.command = concat("'", join(line, " "), "'");
  const pid_t parent = getpid();
  probe.group = fork();
  if (probe.group < 0) throw Error(concat("fork: ", std::strerror(errno)));
  if (probe.group == 0) become(line, parent);
  setpgid(probe.group, probe.group);
  return probe;
}

/// Whether it has ended by itself.
bool has_ended(Probe& probe) {
  int status = 0;
  if (waitpid(probe.group, &status, WNOHANG) != probe.group) return false;
  if (!WIFEXITED(status))
    probe.problem = concat(probe.command, " was ended by signal ", WTERMSIG(status));
  else if (WEXITSTATUS(status) != 0)
    probe.problem = concat(probe.command, " ended with code ", WEXITSTATUS(status));
  kill(-probe.group, SIGKILL);  // what it may have left
  probe.group = 0;
  return true;
}

void end(Probe& probe) {
  kill(-probe.group, SIGKILL);
  while (waitpid(probe.group, nullptr, 0) < 0 && errno == EINTR) {
  }
  probe.group = 0;
}

}  // namespace

std::vector<HostProblem> probe_hosts(const std::vector<std::string>& launcher, const std::vector<std::string>& hosts,
                                     std::chrono::milliseconds limit, const std::function<bool()>& give_up) {
  constexpr int kLook_ms = 50;
  std::vector<Probe> probes;
  for (const std::string& host : hosts) probes.push_back(start(launcher, host));
  const Clock::time_point deadline = Clock::now() + limit;
  for (bool waiting = true; waiting;) {
    const bool late = Clock::now() >= deadline || give_up();
    waiting = false;
    for (Probe& probe : probes) {
      if (probe.group == 0 || has_ended(probe)) continue;
      waiting = !late;
      if (!late) continue;
      probe.problem = concat(probe.command, " was not done after ",
                             std::chrono::duration_cast<std::chrono::seconds>(limit).count(), " s");
      end(probe);
    }
    if (waiting) poll(nullptr, 0, kLook_ms);
  }
  std::vector<HostProblem> problems;
  for (const Probe& probe : probes) problems.push_back(probe.problem);
  return problems;
}

}  // namespace lockstep
