// SPDX-License-Identifier: Apache-2.0
//
// What the metrics have in common: which targets fit, classes as rows, sums. Private to this folder.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "runtime/layer/loss.hpp"
#include "runtime/layer/metric.hpp"

namespace lockstep::metric_parts {

using Numbers = std::vector<double>;

inline bool is_classes(const EntrySpec& targets) {
  return targets.dtype == at::kLong;
}

[[noreturn]] inline void fail(const EntrySpec& output, const EntrySpec& targets, const char* wanted) {
  throw ModelError(concat("the model puts out ", to_string(output), ", the targets are ", to_string(targets),
                          "; it wants ", wanted));
}

inline bool fits_classes(const EntrySpec& output, const EntrySpec& targets) {
  return is_classes(targets) && !output.sizes.empty() &&
         std::equal(output.sizes.begin(), output.sizes.end() - 1, targets.sizes.begin(), targets.sizes.end());
}

inline bool fits_numbers(const EntrySpec& output, const EntrySpec& targets) {
  return at::isFloatingType(targets.dtype) && output.sizes == targets.sizes;
}

inline void check_classes(const EntrySpec& output, const EntrySpec& targets) {
  if (!fits_classes(output, targets))
    fail(output, targets, "classes, int64, and an output with one number for each class");
}

inline void check_numbers(const EntrySpec& output, const EntrySpec& targets) {
  if (!fits_numbers(output, targets)) fail(output, targets, "numbers of the shape of the output");
}

inline void check_either(const EntrySpec& output, const EntrySpec& targets) {
  if (!fits_classes(output, targets) && !fits_numbers(output, targets))
    fail(output, targets, "classes with an output for each, or yes and no (0 and 1) of the shape of the output");
}

inline at::Tensor doubles(const at::Tensor& tensor) {
  return tensor.to(at::kDouble);
}

inline at::Tensor numbers(std::initializer_list<at::Tensor> scalars) {
  std::vector<at::Tensor> all;
  for (const at::Tensor& scalar : scalars) all.push_back(doubles(scalar).reshape({1}));
  return at::cat(all);
}

/// Targets that are classes, as rows: output [n, classes], targets [n], in which those that do not count are 0, and
/// what each counts, 0 or 1. No shape depends on values: a device would have to be waited for.
struct Rows {
  at::Tensor output, targets, counts;
};

inline Rows rows_of(const at::Tensor& output, const at::Tensor& targets) {
  const at::Tensor flat = targets.reshape({-1}), ignored = flat.eq(kIgnoredTarget);
  return {output.reshape({-1, output.size(-1)}), flat.masked_fill(ignored, 0), doubles(ignored.logical_not())};
}

/// Sums of `amounts` by index: double [count].
inline at::Tensor sums_by(const at::Tensor& indices, const at::Tensor& amounts, std::int64_t count) {
  return at::zeros({count}, amounts.options()).scatter_add(0, indices, amounts);
}

/// Of rows that are right: {right, all}.
inline at::Tensor right_of(const at::Tensor& right, const at::Tensor& counts) {
  return numbers({(right * counts).sum(), counts.sum()});
}

/// Labels of numbers: [n, labels].
inline at::Tensor by_label(const at::Tensor& tensor) {
  return tensor.dim() < 2 ? tensor.reshape({-1, 1}) : tensor.reshape({-1, tensor.size(-1)});
}

inline double ratio(double part, double whole) {
  return whole > 0 ? part / whole : NAN;
}

/// Of {sum, count}.
inline double mean_of(const Numbers& all) {
  return all.empty() ? NAN : ratio(all[0], all[1]);
}

}  // namespace lockstep::metric_parts
