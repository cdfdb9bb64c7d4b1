// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/loss.hpp"

#include <ATen/ATen.h>

namespace lockstep {

at::Tensor for_loss(const at::Tensor& output) {
  return output.scalar_type() == at::kDouble ? output : output.to(at::kFloat);
}

}  // namespace lockstep
