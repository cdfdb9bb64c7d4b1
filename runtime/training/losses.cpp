// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/losses.hpp"

#include <ATen/ATen.h>

#include <limits>

#include "runtime/config/section.hpp"
#include "runtime/training/cross_entropy.hpp"

namespace lockstep {
namespace {

void expect_same_shape(const std::string& loss, const EntrySpec& output, const EntrySpec& targets) {
  if (output.sizes != targets.sizes || !at::isFloatingType(targets.dtype))
    throw ModelError(concat("the model puts out ", to_string(output), ", the targets are ", to_string(targets), "; ",
                            loss, " wants floating-point targets of the same shape"));
}

void expect_classes(std::int64_t classes, const EntrySpec& targets) {
  if (targets.below > classes)
    throw ModelError(concat("the model puts out ", classes, " classes, the targets have classes up to ",
                            targets.below - 1, "; it needs ", targets.below, " outputs or more"));
}

TargetDomain class_indices(std::int64_t classes) {
  return {.least = 0,
          .most = static_cast<double>(classes - 1),
          .ignored = kIgnoredTarget,
          .text = concat("classes from 0 to ", classes - 1, ", as many as the model puts out, or ", kIgnoredTarget,
                         " (ignored)"),
          .advice = "count classes from 0: subtract 1 from labels 1, 2, 3, ..., or give the model more outputs"};
}

class MeanSquaredError : public Loss {
 public:
  std::string name() const override { return "mean_squared_error"; }
  TargetDomain domain(const EntrySpec&) const override {
    return {.least = std::numeric_limits<float>::lowest(),
            .most = std::numeric_limits<float>::max(),
            .text = "finite numbers",
            .advice = "leave such samples out"};
  }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    expect_same_shape(name(), output, targets);
  }
  double denominator(const at::Tensor& targets) const override { return static_cast<double>(targets.numel()); }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor wide = for_loss(output);
    return at::mse_loss(wide, targets.to(wide.scalar_type()), at::Reduction::Sum);
  }
};

class SparseCategoricalCrossEntropy : public Loss {
 public:
  std::string name() const override { return "sparse_categorical_cross_entropy"; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    std::vector<std::int64_t> expected = output.sizes;
    if (!expected.empty()) expected.pop_back();
    if (output.sizes.size() < 2 || expected != targets.sizes || targets.dtype != at::kLong)
      throw ModelError(concat("the model puts out ", to_string(output), ", the targets are ", to_string(targets), "; ",
                              name(), " wants an output [..., classes] and int64 targets [...]"));
    expect_classes(output.sizes.back(), targets);
  }
  TargetDomain domain(const EntrySpec& output) const override { return class_indices(output.sizes.back()); }
  double denominator(const at::Tensor& targets) const override {
    return static_cast<double>(targets.ne(kIgnoredTarget).sum().item<std::int64_t>());
  }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    return cross_entropy_of_rows(output.reshape({-1, output.size(-1)}), targets.reshape({-1}),
                                 cross_entropy_bytes(output.device()));
  }
};

class SegmentationCrossEntropy : public Loss {
 public:
  std::string name() const override { return "segmentation_cross_entropy"; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    std::vector<std::int64_t> expected = output.sizes;
    if (expected.size() > 1) expected.erase(expected.begin() + 1);
    if (output.sizes.size() < 3 || expected != targets.sizes || targets.dtype != at::kLong)
      throw ModelError(
          concat("the model puts out ", to_string(output), ", the targets are ", to_string(targets), "; ", name(),
                 " wants an output [rows, classes, height, width] and int64 targets [rows, height, ", "width]"));
    expect_classes(output.sizes[1], targets);
  }
  TargetDomain domain(const EntrySpec& output) const override { return class_indices(output.sizes[1]); }
  double denominator(const at::Tensor& targets) const override {
    return static_cast<double>(targets.ne(kIgnoredTarget).sum().item<std::int64_t>());
  }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    return cross_entropy_of_pixels(output, targets);
  }
};

class BinaryCrossEntropy : public Loss {
 public:
  std::string name() const override { return "binary_cross_entropy"; }
  TargetDomain domain(const EntrySpec&) const override {
    return {.least = 0,
            .most = 1,
            .text = "numbers from 0 to 1",
            .advice =
                "map labels -1 and 1 to 0 and 1, divide values 0 to 255 by 255, and use "
                "sparse_categorical_cross_entropy for classes 0, 1, 2, ..."};
  }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    expect_same_shape(name(), output, targets);
  }
  double denominator(const at::Tensor& targets) const override { return static_cast<double>(targets.numel()); }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor wide = for_loss(output);
    return at::binary_cross_entropy_with_logits(wide, targets.to(wide.scalar_type()), /*weight=*/{}, /*pos_weight=*/{},
                                                at::Reduction::Sum);
  }
};

}  // namespace

Table<LossKind> loss_kinds() {
  return {
      "loss",
      {
          {"mean_squared_error", "regression: numbers, any shape", [] { return std::make_unique<MeanSquaredError>(); }},
          {"sparse_categorical_cross_entropy",
           "a class index per row or token, -100 is ignored; output: a logit per class, last",
           [] { return std::make_unique<SparseCategoricalCrossEntropy>(); }},
          {"segmentation_cross_entropy",
           "a class index per pixel, -100 is ignored; output: [rows, classes, height, width]",
           [] { return std::make_unique<SegmentationCrossEntropy>(); }},
          {"binary_cross_entropy", "yes or no, targets from 0 to 1, any shape; output: logits",
           [] { return std::make_unique<BinaryCrossEntropy>(); }},
      }};
}

}  // namespace lockstep
