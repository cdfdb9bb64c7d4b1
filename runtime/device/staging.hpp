// SPDX-License-Identifier: Apache-2.0
//
// Copies between the host and a device for which no thread waits. A device reads and writes memory of the host by
// itself only where that is pinned; from other memory a copy holds up the thread, and what has been told before it.
// LibTorch gives pinned memory to others only when the copies that it knows of are over.
#pragma once

#include <ATen/core/Tensor.h>

namespace lockstep {

/// The tensor on the device, in the order of this thread's stream there; through pinned memory when it comes from the
/// host.
at::Tensor to_device(const at::Tensor& tensor, c10::Device device);
/// On the host when this thread's stream has come so far: until then nobody may look at it.
at::Tensor to_host_later(const at::Tensor& tensor);

}  // namespace lockstep
