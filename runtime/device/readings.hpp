// SPDX-License-Identifier: Apache-2.0
//
// Numbers that a device computes and the host wants to know: together, in one copy, and not each as it comes, for which
// the host would wait every time.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace lockstep {

class Readings {
 public:
  using Take = std::function<void(std::span<const double>)>;
  /// `numbers`: any shape and dtype. Of the host they are taken at once, of a device by take().
  void add(const at::Tensor& numbers, Take take);
  /// Begins to copy what has been added, in the order of this thread's stream.
  void fetch();
  /// The stream has come past that: hands out, in the order of add().
  void take();

 private:
  std::vector<std::pair<at::Tensor, Take>> awaited_;
  std::vector<std::size_t> order_;  // of awaited_ in numbers_
  at::Tensor numbers_;
};

}  // namespace lockstep
