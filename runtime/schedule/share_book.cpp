// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/share_book.hpp"

namespace lockstep {

void ShareBook::open(std::int64_t step, int shares) {
  left_of_[step] = shares + (settles_ ? 1 : 0);
  for (int share = 0; share < shares; ++share) to_do_.push_back({step, share});
}

std::optional<Share> ShareBook::take(int worker) {
  if (to_do_.empty() || static_cast<int>(under_way_.size()) >= most_) return std::nullopt;
  const Share next = to_do_.front();
  if (settles_ && left_of_.begin()->first < next.step) return std::nullopt;
  to_do_.pop_front();
  under_way_[worker] = next;
  return next;
}

bool ShareBook::done(int worker) {
  const std::int64_t step = under_way_.at(worker).step;
  under_way_.erase(worker);
  const int left = --left_of_.at(step);
  if (settles_ && left == 1) to_do_.push_front({step, Share::kSettle});
  if (left == 0) left_of_.erase(step);
  return left == 0;
}

void ShareBook::leave(int worker) {
  if (const auto of = under_way_.find(worker); of != under_way_.end()) {
    to_do_.push_front(of->second);
    under_way_.erase(of);
  }
}

}  // namespace lockstep
