// SPDX-License-Identifier: Apache-2.0
//
// Two reductions in one fixed order of operations, whatever the machine's vector width or thread count.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lockstep {

/// Elements of which squared_norm() makes a sum of its own.
inline constexpr std::size_t kNormBlock = 65536;

/// Sum of squares in double, over a float32 or float64 tensor of the host: of each block of kNormBlock
/// elements, then over the blocks in order. So who holds only some blocks of a tensor has a part of the whole.
double squared_norm(const at::Tensor& tensor);

/// The same of each of these, on any device. A device sums its blocks itself, in its own order, and the host gets 8
/// bytes of each, all in one copy, for which it waits.
std::vector<double> squared_norms(const std::vector<at::Tensor>& tensors);

/// Whether every element is finite. Integer tensors are; float32, float64 and bfloat16 are read once.
bool all_finite(const at::Tensor& tensor);

}  // namespace lockstep
