// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/staging.hpp"

#include <ATen/ATen.h>

namespace lockstep {
namespace {

at::Tensor pinned_like(const at::Tensor& tensor) {
  return at::empty(tensor.sizes(), at::TensorOptions(tensor.scalar_type()).pinned_memory(true));
}

}  // namespace

at::Tensor to_device(const at::Tensor& tensor, c10::Device device) {
  if (device.is_cpu() || !tensor.device().is_cpu()) return tensor.to(device);
  if (tensor.is_pinned() || tensor.numel() == 0) return tensor.to(device, /*non_blocking=*/true);
  return pinned_like(tensor).copy_(tensor).to(device, /*non_blocking=*/true);
}

at::Tensor to_host_later(const at::Tensor& tensor) {
  if (tensor.device().is_cpu()) return tensor;
  return pinned_like(tensor).copy_(tensor, /*non_blocking=*/true);
}

}  // namespace lockstep
