// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/backoff.hpp"

#include <sys/prctl.h>

#include <algorithm>
#include <thread>

namespace lockstep {
namespace {

using std::chrono::nanoseconds;

constexpr int kSleepPart = 64;  // a sleep may add 1/64 to the time waited

struct Pace {
  nanoseconds spin, shortest_sleep, longest_sleep;
};

// The spin is longer than two sleeps. Otherwise one side that sleeps makes the other side sleep too, and a ping-pong of
// 5 us a hop turns into one of 50 us for good.
constexpr Pace kOwnCore{nanoseconds(100'000), nanoseconds(1'000), nanoseconds(200'000)};

// A sleep costs some 20 us of CPU however short it is: 8 ranks on 2 cores that sleep 1 us leave no core to anybody (a
// hop round a ring takes 7 ms; 150 us with 10 us, 50 us with 30 us, 80 us with 100 us). A rank that polls every 200 us
// for long still takes 4 % of a core, every 500 us 2 %.
constexpr Pace kSharedCore{nanoseconds(2'000), nanoseconds(30'000), nanoseconds(500'000)};

const Pace& pace_of(Cores cores) {
  return cores == Cores::own ? kOwnCore : kSharedCore;
}

}  // namespace

Backoff::Backoff(Cores cores) : cores_(cores), start_(Clock::now()) {}

bool Backoff::spin() {
  if (exact_timer_ || waited() >= pace_of(cores_).spin) return false;
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
  return true;
}

void Backoff::sleep() {
  if (!exact_timer_) {
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    exact_timer_ = true;
  }
  const nanoseconds part = waited() / kSleepPart;
  std::this_thread::sleep_for(std::clamp(part, pace_of(cores_).shortest_sleep, pace_of(cores_).longest_sleep));
}

}  // namespace lockstep
