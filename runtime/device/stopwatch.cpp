// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/stopwatch.hpp"

#include <algorithm>

#include "runtime/base/clock.hpp"

namespace lockstep {
namespace {

double elapsed_us(const Stopwatch::Mark& from, const Stopwatch::Mark& to) {
  return from.event->elapsedTime(*to.event) * 1e3;
}

}  // namespace

Stopwatch::Mark Stopwatch::mark() const {
  Mark mark{now_us()};
  if (!stream_.is_of_host()) mark.event = stream_.record_time();
  return mark;
}

void Stopwatch::wait(const Mark& first, const Mark& last) {
  stream_.synchronize();
  set(first, last);
}

void Stopwatch::set(const Mark& first, const Mark& last) {
  if (!last.event) return;
  // The device's clock says how long; where that lies on the host's clock is known by what came before, and by this:
  // nothing is done before it was told, nor later than it is seen to be over. So the two cannot drift apart.
  double us = first.told_us;
  if (anchor_.event) us = std::max(us, anchor_us_ + elapsed_us(anchor_, first));
  anchor_us_ = std::min(us, now_us() - elapsed_us(first, last));
  anchor_ = first;
}

double Stopwatch::us(const Mark& mark) const {
  return mark.event ? anchor_us_ + elapsed_us(anchor_, mark) : mark.told_us;
}

}  // namespace lockstep
