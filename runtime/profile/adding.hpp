// SPDX-License-Identifier: Apache-2.0
//
// What adding up gradients costs: each replica of a model does it, and it is as fast as memory is.
#pragma once

#include <c10/core/Device.h>

namespace lockstep {

/// Bytes of a float32 tensor that is added to another one in a microsecond, on a device; the median of several. As it
/// is where `workers` threads, with `threads` cores each, do so at the same time: of the slowest.
double measure_adding(c10::Device device, int workers, int threads);

}  // namespace lockstep
