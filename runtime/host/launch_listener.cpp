// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/launch_listener.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <ostream>
#include <regex>
#include <utility>

#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

/// Which of the ranks of this host ended first: a rank that MPI ended because another was gone was not.
std::vector<EndedRank> in_order(std::vector<EndedRank> seen, LaunchListener::FoundGone found_gone) {
  for (auto gone = found_gone.end(); !seen.empty(); found_gone.erase(gone)) {
    gone = found_gone.find({seen.front().host, seen.front().pid});
    if (gone == found_gone.end()) break;
    const auto first =
        std::find_if(seen.begin(), seen.end(), [&](const EndedRank& rank) { return rank.pid == gone->second; });
    if (first == seen.end())
      seen.insert(seen.begin(), {gone->second, seen.front().host, ""});
    else
      std::rotate(seen.begin(), first, first + 1);
  }
  return seen;
}

/// What mpiexec reports proves something only with a code that mpiexec itself does not cause: it kills the other ranks.
EndedRank crashed(EndedRank reported, const LaunchListener::FoundGone& found_gone) {
  const int code = std::atoi(reported.how.c_str());
  const bool was_ended_by_mpi = std::any_of(found_gone.begin(), found_gone.end(), [&](const auto& entry) {
    return entry.first.second == reported.pid;  // hydra may have another name for the host
  });
  if (code == 0 || code == SIGKILL || code == SIGTERM || was_ended_by_mpi) return {};
  const bool as_after_signal = code == SIGABRT || code == SIGBUS || code == SIGFPE || code == SIGSEGV;
  reported.how = concat("mpiexec reports code ", code, as_after_signal ? concat(", as after ", signal_name(code)) : "");
  return reported;
}

}  // namespace

LaunchListener::~LaunchListener() {
  close(input_);
}

void LaunchListener::listen() {
  char buffer[4096];
  const ssize_t got = read(input_, buffer, sizeof(buffer));
  if (got < 0 && errno == EINTR) return;
  at_end_ = got <= 0;
  if (got > 0) waiting_.append(buffer, static_cast<std::size_t>(got));
  if (at_end_ && !waiting_.empty()) waiting_ += '\n';
  take_lines();
  if (at_end_ && !rule_.empty()) say(std::exchange(rule_, ""));
}

void LaunchListener::take_lines() {
  while (true) {
    if (take_moving_line()) continue;
    const std::size_t end = waiting_.find('\n');
    if (end == std::string::npos) return;
    const std::string line = waiting_.substr(0, end);
    waiting_.erase(0, end + 1);
    hear(line);
  }
}

// A line of another rank may have begun before it.
bool LaunchListener::take_moving_line() {
  const std::size_t begin = waiting_.find(Console::kDraw), end = waiting_.find('\n');
  const std::size_t erase = begin == std::string::npos ? begin : waiting_.find(Console::kErase, begin);
  if (erase == std::string::npos || erase > end) return false;
  const std::size_t text = begin + Console::kDraw.size();
  console_.move(waiting_.substr(text, erase - text));
  waiting_.erase(begin, erase + Console::kErase.size() - begin);
  return true;
}

void LaunchListener::hear(const std::string& line) {
  if (is_of_backtrace(line) || is_of_block(line)) return;
  if (line.starts_with("YOUR APPLICATION TERMINATED WITH THE EXIT STRING") ||
      line.starts_with("This typically refers to") || line.starts_with("Please see the FAQ page") ||
      (line.starts_with("Abort(") && line.find("MPI_Abort") != std::string::npos))
    return;
  if (line.empty())  // hydra's block has one before it
    ++empty_lines_;
  else
    say(line);
}

bool LaunchListener::is_of_block(const std::string& line) {
  static const std::regex process(R"(=\s+PID (\d{1,9}) RUNNING AT (\S+))"), code(R"(=\s+EXIT CODE: (\d{1,9}))");
  const bool is_rule = line.starts_with("=====") && line.find_first_not_of('=') == std::string::npos;
  if (in_block_) {
    empty_lines_ = 0;
    in_block_ = !is_rule;
    std::smatch match;
    if (std::regex_search(line, match, process)) {
      reported_.pid = std::stoi(match[1]);
      reported_.host = match[2];
    }
    if (std::regex_search(line, match, code)) reported_.how = match[1];
    return true;
  }
  const std::string before = std::exchange(rule_, is_rule ? line : "");
  if (is_rule) {
    if (!before.empty()) say(before);
    return true;
  }
  if (before.empty()) return false;
  in_block_ = line.starts_with("=   BAD TERMINATION");
  if (in_block_)
    empty_lines_ = 0;
  else
    say(before);
  return in_block_;
}

// [node7:20686:0:20725]      cma_ep.c:81   process_vm_readv(pid=20685 {...}-->{...}) returned -1: No such process
// ==== backtrace (tid:  20725) ====
//  0  /lib/x86_64-linux-gnu/libucs.so.0(ucs_handle_error+0x2dc) [0x7fc3f65cce9c]
// =================================
// Those of several ranks may come at once, and other lines in between.
bool LaunchListener::is_of_backtrace(const std::string& line) {
  static const std::regex gone(
      R"(\[([^:\]]*):(\d{1,9}) *:\d+:(\d+) *\].* process_vm_\w+\(pid=(\d{1,9}) .*: No such process)"),
      begin(R"(==== backtrace \(tid: *(\d+)\) ====)"), frame(R"( *\d+ +\S.*\[0x[0-9a-f]+\])");
  constexpr std::size_t kLongest = 4096;  // no std::regex bears a line of any length
  if (line.size() > kLongest) return false;
  std::smatch match;
  if (line.starts_with('[') && std::regex_match(line, match, gone)) {
    const int speaker = std::stoi(match[2]), other = std::stoi(match[4]);
    threads_.insert(match[3]);
    found_gone_[{match[1], speaker}] = other;
    say(concat("lockstep: launch: MPI ended process ", speaker, ", because process ", other,
               ", from which it was reading, was gone"));
    return true;
  }
  if (!threads_.empty() && std::regex_match(line, match, begin) && threads_.erase(match[1]) > 0) {
    ++backtraces_;
    return true;
  }
  if (backtraces_ == 0) return false;
  if (line == std::string(33, '=')) {
    --backtraces_;
    return true;
  }
  return std::regex_match(line, frame);
}

void LaunchListener::say(const std::string& line) {
  const Console::Pause pause(console_);
  output_ << std::string(static_cast<std::size_t>(std::exchange(empty_lines_, 0)), '\n') + line + "\n" << std::flush;
}

RankEnds ends_of(const std::vector<EndedRank>& seen, const LaunchListener& output, const LaunchListener& errors) {
  LaunchListener::FoundGone found_gone = output.found_gone();
  found_gone.insert(errors.found_gone().begin(), errors.found_gone().end());
  const EndedRank& reported = output.reported().pid != 0 ? output.reported() : errors.reported();
  return {in_order(seen, found_gone), crashed(reported, found_gone)};
}

}  // namespace lockstep
