// SPDX-License-Identifier: Apache-2.0
//
// Sees which ranks of this host end, and in which order. `lockstep launch` is not their parent, but the kernel tells
// whoever holds a pidfd, and an epoll hands its events out in the order in which they came, however late it is asked.
// Costs the ranks nothing. Where pidfds are missing (before Linux 5.3) nothing is seen.
//
// Who the ranks are stands in their flight recorders, which appear when the job has started: so for a moment at the
// start a rank may end unseen, and those of other hosts always do.
#pragma once

#include <sys/types.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "runtime/observe/story.hpp"

namespace lockstep {

class RankWatch {
 public:
  /// Made before the ranks start: recorders that are there already are those of a start before. `program`: what ranks
  /// run.
  RankWatch(const std::string& run_folder, const std::string& program);
  ~RankWatch();
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;

  /// Looks for ranks that have started; to be called every 100 ms or so.
  void look();
  /// Not all are known yet, and there is hope: a rank that cannot make its recorder is never seen.
  bool is_looking() const { return looks_left_ > 0; }
  /// Can be read when a rank has ended: then call hear().
  int descriptor() const { return events_; }
  void hear();
  /// The recorders are no longer those of a start before.
  bool has_started() const;
  /// One of those that ended did so by a signal, or with an exit code other than 0.
  bool has_failed() const;
  /// Of those that are watched.
  bool all_ended() const { return running_.empty(); }
  /// In the order in which they ended.
  const std::vector<EndedRank>& ended() const { return ended_; }

 private:
  void watch(int pid, const std::string& host);

  std::string folder_, program_, host_;
  ino_t before_ = 0;  // of the recorder folder
  int events_ = -1;
  int looks_left_ = 600;              // a minute from the first recorder on
  std::set<std::string> files_;       // recorders that have been read
  std::set<int> known_;               // ranks
  std::map<int, EndedRank> running_;  // by pidfd
  std::vector<EndedRank> ended_;
};

}  // namespace lockstep
