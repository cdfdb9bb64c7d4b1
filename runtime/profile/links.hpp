// SPDX-License-Identifier: Apache-2.0
//
// What a message costs between two workers: ping-pong over their channels.
#pragma once

#include <functional>

#include "partitioner/profile_file.hpp"
#include "runtime/comm/channel.hpp"
#include "runtime/device/stream.hpp"

namespace lockstep {

// Of links that nobody has measured or written.
inline constexpr LinkCost kAssumedSameHost{5, 6e3};      ///< 5 us, 6 GB/s: two ranks through shared memory
inline constexpr LinkCost kAssumedOtherHost{20, 1.2e3};  ///< 20 us, 1.2 GB/s: ten-gigabit Ethernet
inline constexpr LinkCost kAssumedCopy{10, 1.2e4};       ///< 10 us, 12 GB/s: between two devices, through the host

/// One side of it; the other side calls it at the same time with `begins` turned around, over the same two channels.
/// Both get the same answer but for noise; a small message gives the latency, one of 8 MiB the bandwidth.
LinkCost measure_link(Channel& out, Channel& in, bool begins, const WaitLimits& limits);

/// What a large message takes from a worker at either end that computes meanwhile and calls `look` (RemoteLinks::look)
/// now and then, in microseconds per byte: close to 0 where a helper on a core of its own or the network moves it. Both
/// sides call it, as measure_link(), whose answer is `link`.
double measure_busy(Channel& out, Channel& in, bool begins, const std::function<void()>& look, const LinkCost& link,
                    const WaitLimits& limits);

/// Between two threads of this process: the latency alone, for tensors are handed over by pointer.
LinkCost measure_local_link();

/// A tensor as one worker hands it to another on another device of this process, the host or not.
LinkCost measure_copy(at::Device from, at::Device to);

/// Microseconds of a fixed piece of work on this thread: the median of several products of matrices.
double measure_work_us();

}  // namespace lockstep
