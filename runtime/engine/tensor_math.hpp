// SPDX-License-Identifier: Apache-2.0
//
// Reductions in one fixed order of operations, whatever the machine's vector width or thread count. A device has an
// order of its own, and nobody waits for it. And parts of tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "runtime/schedule/shares.hpp"

namespace lockstep {

/// Sum of squares in double, over a float32 or float64 tensor of the host: of each block of kNormBlock
/// elements, then over the blocks in order. So who holds only some blocks of a tensor has a part of the whole.
double squared_norm(const at::Tensor& tensor);

/// The same of each of these, which are on `device`: double [tensors], there.
at::Tensor squared_norms(const std::vector<at::Tensor>& tensors, at::Device device);

/// Squared norms of the gradients that a row has a part in.
struct SquaredNorms {
  static constexpr int kWhole = -1;
  std::vector<int> parameters = {};  ///< indices in the model's parameter order; one of which a row has a share repeats
  std::vector<int> blocks = {};      ///< parallel: kWhole, or which block of it
  at::Tensor squares = {};           ///< of their gradients: double [parameters], on the row's device
};
/// The 2-norm of them all: squares are added by block, then in the model's parameter order, on `device`. Double [].
at::Tensor total_norm(const std::vector<SquaredNorms>& parts, at::Device device);

/// These elements of a tensor with at least as many, flat; the tensor itself when they are all.
at::Tensor elements_of(const at::Tensor& tensor, std::int64_t begin, std::int64_t end);

/// Whether every element is finite. Integer tensors are; float32, float64 and bfloat16 are read once.
bool all_finite(const at::Tensor& tensor);

}  // namespace lockstep
