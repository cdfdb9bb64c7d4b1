// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/metric.hpp"

#include <ATen/ATen.h>

#include "runtime/base/check.hpp"

namespace lockstep {

void Metric::merge(std::vector<double>& all, std::span<const double> more) const {
  if (all.empty()) {
    all.assign(more.begin(), more.end());
    return;
  }
  LOCKSTEP_CHECK(all.size() == more.size(), name(), ": states of ", all.size(), " and ", more.size(), " numbers");
  for (std::size_t i = 0; i < all.size(); ++i) all[i] += more[i];
}

at::Tensor classes_last(const at::Tensor& tensor, std::int64_t dimension) {
  return dimension < 0 ? tensor : tensor.movedim(dimension, -1);
}

}  // namespace lockstep
