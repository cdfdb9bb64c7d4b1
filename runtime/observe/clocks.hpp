// SPDX-License-Identifier: Apache-2.0
//
// How far the clocks of two ranks are apart, from exchanges in which nobody can leave before everybody has entered (an
// all-gather). With "b's clock = a's clock + offset", every exchange gives two bounds:
//
//   a entered before b left:   offset <= left_b - entered_a
//   b entered before a left:   offset >= entered_b - left_a
//
// so the offset lies in an interval for certain, and several exchanges narrow it.
#pragma once

#include <string>
#include <vector>

namespace lockstep {

/// One exchange, on the clock of the rank that took part.
struct ClockExchange {
  double entered_us = 0, left_us = 0;
};

struct ClockOffset {
  double us = 0;        ///< their clock - our clock
  double error_us = 0;  ///< the truth lies within us +- error_us
};

/// From the same exchanges as seen by two ranks, in the same order. `same_kernel`: both read the clock of one kernel,
/// so 0 is taken, exactly, when the bounds allow it.
ClockOffset clock_offset(const std::vector<ClockExchange>& ours, const std::vector<ClockExchange>& theirs,
                         bool same_kernel);

/// What tells kernels apart: /proc/sys/kernel/random/boot_id; empty when there is none.
std::string kernel_id();

}  // namespace lockstep
