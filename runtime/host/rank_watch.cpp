// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/rank_watch.hpp"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "runtime/base/error.hpp"

namespace lockstep {

namespace fs = std::filesystem;

namespace {

ino_t inode_of(const std::string& path) {
  struct stat found {};
  return stat(path.c_str(), &found) == 0 ? found.st_ino : 0;
}

std::string host_name() {
  char name[256] = "";
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

int open_process([[maybe_unused]] int pid) {
#ifdef SYS_pidfd_open
  return static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
#else
  return -1;
#endif
}

/// As waitpid gives it; 0: not known.
int status_of_zombie(int pid) {
  std::ifstream file(concat("/proc/", pid, "/stat"));
  std::string text;
  std::getline(file, text);                         // which may fail in the middle: the process vanishes
  const std::size_t last = text.find_last_of(' ');  // field 52: exit_code
  return last == std::string::npos ? 0 : std::atoi(text.c_str() + last);
}

/// The same of a process that its parent has waited for; Linux 6.15 or newer. Debian 12's headers do not know it yet.
int status_of_reaped(int process) {
  struct Info {  // pidfd_info of linux/pidfd.h
    std::uint64_t mask, cgroup;
    std::uint32_t ids[11];
    std::int32_t exit_code;
  };
  static_assert(sizeof(Info) == 64);
  constexpr std::uint64_t kExit = 1U << 3;
  Info info{};
  info.mask = kExit;
  return ioctl(process, _IOWR(0xFF, 11, Info), &info) == 0 && (info.mask & kExit) != 0 ? info.exit_code : 0;
}

/// "SIGKILL", "exit code 3"; empty when it is not known.
std::string how_it_ended(int process, int pid) {
  int status = status_of_zombie(pid);
  if (status == 0) status = status_of_reaped(process);
  if (status == 0) return "";
  return WIFSIGNALED(status) ? signal_name(WTERMSIG(status)) : concat("exit code ", WEXITSTATUS(status));
}

}  // namespace

RankWatch::RankWatch(const std::string& run_folder, const std::string& program)
    : folder_(recorder_folder(run_folder)),
      program_(program),
      host_(host_name()),
      before_(inode_of(folder_)),
      events_(epoll_create1(EPOLL_CLOEXEC)) {}

RankWatch::~RankWatch() {
  for (const auto& [process, rank] : running_) close(process);
  if (events_ >= 0) close(events_);
}

bool RankWatch::has_started() const {
  const ino_t now = inode_of(folder_);
  return now != 0 && now != before_;
}

bool RankWatch::has_failed() const {
  return std::any_of(ended_.begin(), ended_.end(), [](const EndedRank& rank) { return !rank.how.empty(); });
}

void RankWatch::look() {
  if (looks_left_ == 0 || !has_started()) return;
  --looks_left_;
  std::error_code failure;
  fs::directory_iterator entries(folder_, failure);
  for (; !failure && entries != fs::directory_iterator(); entries.increment(failure)) {
    const std::string file = entries->path().string();
    if (!file.ends_with(".bin") || files_.contains(file)) continue;
    std::string problem;
    const std::optional<FlightLog> log = read_flight_log(file, problem);
    if (!log) continue;  // just being made
    files_.insert(file);
    if (known_.insert(log->owner.rank).second && log->owner.host == host_) watch(log->pid, log->owner.host);
    if (known_.size() >= static_cast<std::size_t>(log->owner.ranks)) looks_left_ = 0;
  }
}

void RankWatch::watch(int pid, const std::string& host) {
  const int process = open_process(pid);
  if (process < 0) return;
  // Containers may have one host name and process ids of their own.
  std::error_code failure;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = process;
  if (fs::read_symlink(concat("/proc/", pid, "/exe"), failure) != program_ ||
      epoll_ctl(events_, EPOLL_CTL_ADD, process, &event) != 0)
    close(process);
  else
    running_[process] = {pid, host, ""};
}

void RankWatch::hear() {
  std::array<epoll_event, 64> events{};
  for (int count = 0; (count = epoll_wait(events_, events.data(), static_cast<int>(events.size()), 0)) > 0;)
    for (int i = 0; i < count; ++i) {
      const int process = events[static_cast<std::size_t>(i)].data.fd;
      EndedRank rank = running_.at(process);
      rank.how = how_it_ended(process, rank.pid);
      ended_.push_back(rank);
      running_.erase(process);
      epoll_ctl(events_, EPOLL_CTL_DEL, process, nullptr);
      close(process);
    }
}

}  // namespace lockstep
