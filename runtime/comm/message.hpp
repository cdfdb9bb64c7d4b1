// SPDX-License-Identifier: Apache-2.0
//
// What travels on an edge: an ordered list of tensors with the step and micro-batch they belong to. Values, gradients,
// step headers, norms and results all travel as this one type (control data as 1-D uint8 or double tensors).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/device/handover.hpp"

namespace lockstep {

struct Message {
  std::int64_t sequence = 0;  ///< number of the program run it belongs to; checked by the receiver
  int micro_batch = -1;       ///< -1: not of a micro-batch
  std::vector<at::Tensor>
      tensors;     ///< contiguous or undefined (an absent gradient); any dtype and shape, 0 elements too
  Loan loan = {};  ///< of tensors that are on a device, or on their way from it
};

/// Control data as a 1-D uint8 tensor, and back.
at::Tensor tensor_of(const std::string& bytes);
std::string string_of(const at::Tensor& bytes);

}  // namespace lockstep
