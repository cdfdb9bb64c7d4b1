// SPDX-License-Identifier: Apache-2.0
//
// What a device can do at most, as far as a model can come near to it: how fast it multiplies matrices. Measured, so
// that no table of devices is needed and whatever else computes there meanwhile counts.
#pragma once

#include <ATen/core/Tensor.h>

#include "runtime/device/stream.hpp"

namespace lockstep {

/// What libraries set up with a stream's first products, and keep (of CUDA workspaces of some 30 MiB), in the caller's
/// pool.
void set_up_products(const DeviceStream& stream, at::ScalarType dtype);

/// Floating-point operations per second (a multiply-add is two) of a square product, the best of a few, on the current
/// stream, which must be this one, with this thread's threads and switches. Takes about 40 ms (more where a product of
/// 512 x 512 does), and waits for the device. Draws no random numbers, and no pool of the caller's counts its tensors.
double product_rate(const DeviceStream& stream, at::ScalarType dtype);

}  // namespace lockstep
