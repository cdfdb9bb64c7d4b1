// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/metric.hpp"

#include <ATen/ATen.h>

#include <algorithm>

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

std::string metric_name(const Metrics& metrics, std::size_t head, const Metric& metric) {
  return metrics.size() > 1 ? concat("head_", head, "/", metric.name()) : metric.name();
}

at::Tensor classes_last(const at::Tensor& tensor, std::int64_t dimension) {
  return dimension < 0 ? tensor : tensor.movedim(dimension, -1);
}

EntrySpec classes_last(EntrySpec spec, std::int64_t dimension) {
  if (dimension >= 0) std::rotate(spec.sizes.begin() + dimension, spec.sizes.begin() + dimension + 1, spec.sizes.end());
  return spec;
}

}  // namespace lockstep
