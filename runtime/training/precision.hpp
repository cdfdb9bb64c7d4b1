// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "runtime/config/config.hpp"

namespace lockstep {

/// What layers compute in.
inline at::ScalarType dtype_of(Precision precision) {
  return precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
}

}  // namespace lockstep
