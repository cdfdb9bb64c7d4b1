// SPDX-License-Identifier: Apache-2.0
//
// Who computes what where there are servers: shares of mini-batches, handed out in order to whoever asks, so that a
// slow worker computes fewer. Pure, as UpdateGate, which needs what is promised here.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>

namespace lockstep {

struct Share {
  static constexpr int kSettle = -1;  ///< no share: all of the step's are done, and somebody has to settle its update
  std::int64_t step = 0;
  int share = 0;
  auto operator<=>(const Share&) const = default;
};

class ShareBook {
 public:
  /// No more than `most_under_way` are under way. `settles`: behind the shares of a step its update is settled, and
  /// nothing of the next one is handed out before.
  ShareBook(int most_under_way, bool settles) : most_(most_under_way), settles_(settles) {}

  /// A further mini-batch, of so many shares.
  void open(std::int64_t step, int shares);
  /// None: not now.
  std::optional<Share> take(int worker);
  /// The worker has done that: whether it was the last thing of its step.
  bool done(int worker);
  /// The worker has left: its share is handed out again, before all others.
  void leave(int worker);

  /// There is nothing to hand out.
  bool is_empty() const { return to_do_.empty(); }
  bool is_idle() const { return to_do_.empty() && under_way_.empty(); }
  auto operator<=>(const ShareBook&) const = default;

 private:
  int most_;
  bool settles_;
  std::deque<Share> to_do_;
  std::map<int, Share> under_way_;       // by worker
  std::map<std::int64_t, int> left_of_;  // by step: what is not done
};

}  // namespace lockstep
