// SPDX-License-Identifier: Apache-2.0
//
// Numbers that a device computes and the host wants to know: together, in one copy, and not each as it comes, for which
// the host would wait every time.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>
#include <vector>

namespace lockstep {

class Readings {
 public:
  using Take = std::function<void(double)>;
  /// `scalar`: of one element. Of the host its value is taken at once, of a device by read().
  void add(const at::Tensor& scalar, const Take& take);
  /// Hands out what has been added, in that order; waits for it.
  void read();

 private:
  std::vector<std::pair<at::Tensor, Take>> awaited_;
};

}  // namespace lockstep
