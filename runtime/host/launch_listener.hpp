// SPDX-License-Identifier: Apache-2.0
//
// What `lockstep launch` hears from mpiexec, on one of its two outputs, and passes on. Left out are the blocks in which
// hydra and MPI_Abort say that a rank ended badly, which tell nobody anything, and the backtrace of a rank that MPI
// ended because another had vanished: one line takes its place. A rank's moving line goes to the console.
#pragma once

#include <iosfwd>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/console.hpp"
#include "runtime/observe/story.hpp"

namespace lockstep {

class LaunchListener {
 public:
  /// Reads from `input`, and closes it. All lines are printed while the console pauses.
  LaunchListener(int input, std::ostream& output, Console& console)
      : input_(input), output_(output), console_(console) {}
  ~LaunchListener();
  LaunchListener(const LaunchListener&) = delete;
  LaunchListener& operator=(const LaunchListener&) = delete;

  int input() const { return input_; }
  bool at_end() const { return at_end_; }
  /// Something can be read.
  void listen();

  /// What hydra reports: of the ranks that ended badly any, mostly the lowest; pid 0: nothing.
  const EndedRank& reported() const { return reported_; }
  /// By host and process: the process of that host from which it wanted to read and that was gone.
  using FoundGone = std::map<std::pair<std::string, int>, int>;
  const FoundGone& found_gone() const { return found_gone_; }

 private:
  void take_lines();
  bool take_moving_line();
  void hear(const std::string& line);
  bool is_of_block(const std::string& line);
  bool is_of_backtrace(const std::string& line);
  void say(const std::string& line);

  int input_;
  std::ostream& output_;
  Console& console_;
  std::string waiting_;  // the beginning of a line
  std::string rule_;     // a line of ====, until the next one says what it is
  int empty_lines_ = 0;
  bool at_end_ = false, in_block_ = false;
  std::set<std::string> threads_;  // whose backtrace is nobody's concern, and has not begun
  int backtraces_ = 0;             // that have
  EndedRank reported_;
  FoundGone found_gone_;
};

/// What is known of the end of ranks: `seen` of this host, by the kernel, and what was heard on both outputs. A rank
/// that MPI ended because another was gone comes behind that one, even if the kernel took longer with the other. What
/// mpiexec reports proves something only with a code that it does not cause itself.
RankEnds ends_of(const std::vector<EndedRank>& seen, const LaunchListener& output, const LaunchListener& errors);

}  // namespace lockstep
