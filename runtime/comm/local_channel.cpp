// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/local_channel.hpp"

#include "runtime/base/check.hpp"

namespace lockstep {
namespace {

constexpr int kSpins = 200;                         // a few microseconds: the peer is often just about to act
constexpr std::chrono::milliseconds kStopPoll{20};  // how soon a sleeping worker sees the stop flag

}  // namespace

template <typename Ready>
void LocalChannel::wait(const WaitLimits& limits, const Ready& ready) {
  for (int i = 0; i < kSpins; ++i) {
    if (ready()) return;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  WaitClock clock;
  std::chrono::milliseconds limit = limits.timeout;
  std::unique_lock lock(mutex_);
  while (!ready()) {
    if (limits.stop->raised()) throw JobStopped();
    limits.alive();
    if (const auto waited = clock.look(); waited >= limit) limit = limits.overdue(waited, "");
    changed_.wait_for(lock, kStopPoll);
  }
}

void LocalChannel::post() {
  {
    std::lock_guard lock(mutex_);
    LOCKSTEP_CHECK(posted_ == received_, "a receive is already posted on this channel");
    ++posted_;
  }
  changed_.notify_all();
}

Message LocalChannel::receive(const WaitLimits& limits) {
  LOCKSTEP_CHECK(posted_ == received_ + 1, "receive without post");
  wait(limits, [&] { return sent_ >= posted_; });
  std::lock_guard lock(mutex_);
  Message message = std::move(messages_.front());
  messages_.pop_front();
  ++received_;
  return message;
}

void LocalChannel::send(Message message, const WaitLimits& limits) {
  finish(limits);
  {
    std::lock_guard lock(mutex_);
    messages_.push_back(std::move(message));
    ++sent_;
  }
  changed_.notify_all();
}

void LocalChannel::finish(const WaitLimits& limits) {
  wait(limits, [&] { return posted_ >= sent_; });
}

}  // namespace lockstep
