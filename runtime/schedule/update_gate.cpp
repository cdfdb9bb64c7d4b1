// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/update_gate.hpp"

#include <algorithm>
#include <utility>

namespace lockstep {

std::vector<UpdateGate::Let> UpdateGate::read(int worker) {
  read_[worker] = version_;
  return {{What::read, worker}};
}

bool UpdateGate::knows(std::int64_t step, int share) const {
  if (is_synchronous()) return step <= version_ || shares_in_.contains(share);
  return left_.contains(number_of(step, share));
}

std::vector<UpdateGate::Let> UpdateGate::update(int worker, std::int64_t step, int share) {
  const bool known = knows(step, share);
  last_[worker] = number_of(step, share);
  std::vector<Let> let;
  if (known || is_synchronous()) {
    read_.erase(worker);
    if (is_synchronous() && !known) shares_in_.insert(share);
    let.push_back({What::update, worker, 0, !known});
  } else {
    updates_.push_back({worker, last_[worker]});
  }
  pass_updates(let);
  return let;
}

/// Whether all who have read can still be kept within the bound behind this update.
bool UpdateGate::may_update(int worker) const {
  std::vector<std::int64_t> others;
  for (const auto& [other, version] : read_)
    if (other != worker) others.push_back(version);
  std::sort(others.begin(), others.end());
  for (std::size_t i = 0; i < others.size(); ++i)
    if (version_ + 1 + static_cast<std::int64_t>(i) - others[i] > most_) return false;
  return true;
}

void UpdateGate::pass_updates(std::vector<Let>& let) {
  for (auto next = updates_.begin(); next != updates_.end();) {
    if (!may_update(next->worker)) {
      ++next;
      continue;
    }
    let.push_back({What::update, next->worker, version_ - read_.at(next->worker)});
    read_.erase(next->worker);
    ++version_;
    updates_.erase(next);
    next = updates_.begin();
  }
}

std::vector<UpdateGate::Let> UpdateGate::settle(int worker, std::int64_t step) {
  const bool makes = step == version_ + 1;
  if (makes) {
    ++version_;
    shares_in_.clear();
  }
  return {{What::settle, worker, 0, makes}};
}

std::vector<UpdateGate::Let> UpdateGate::leave(int worker) {
  if (const auto last = last_.find(worker); last != last_.end()) left_.insert(last->second);
  if (std::none_of(updates_.begin(), updates_.end(), [=](const Waiting& waiting) { return waiting.worker == worker; }))
    read_.erase(worker);
  std::vector<Let> let = {{What::leave, worker}};
  pass_updates(let);
  return let;
}

int UpdateGate::waits_for() const {
  if (updates_.empty()) return -1;
  int first = -1;
  for (const auto& [worker, version] : read_) {
    const bool waits = std::any_of(updates_.begin(), updates_.end(),
                                   [of = worker](const Waiting& waiting) { return waiting.worker == of; });
    if (!waits && (first < 0 || version < read_.at(first))) first = worker;
  }
  return first;
}

}  // namespace lockstep
