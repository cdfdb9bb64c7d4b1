// SPDX-License-Identifier: Apache-2.0
//
// Sums of -log softmax(output)[target] over the targets that are not kIgnoredTarget, in the graph of the output.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lockstep {

/// The most float32 that cross_entropy_of_rows() keeps or computes with at a time, about. A device wants fewer and
/// larger pieces: telling it one takes longer than a small one.
inline std::int64_t cross_entropy_bytes(c10::Device device) {
  return std::int64_t{device.is_cpu() ? 64 : 1024} << 20;
}

/// logits [rows, classes], targets int64 [rows]: the bits of at::cross_entropy_loss(for_loss(logits), targets) and of
/// its gradient. With a large vocabulary the logits in float32, their log softmax and its gradient would each be many
/// times the rest of the model: where they take more than `bytes` together they are made for some rows at a time,
/// forward and once more backward, and nothing is kept in between but the logits themselves.
at::Tensor cross_entropy_of_rows(const at::Tensor& logits, const at::Tensor& targets, std::int64_t bytes);

/// output [rows, classes, ...], targets int64 [rows, ...]: the bits of at::cross_entropy_loss(for_loss(output),
/// targets), whose NLLLoss2d CUDA refuses to compute deterministically.
at::Tensor cross_entropy_of_pixels(const at::Tensor& output, const at::Tensor& targets);

}  // namespace lockstep
