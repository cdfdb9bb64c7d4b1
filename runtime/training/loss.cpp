// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/loss.hpp"

#include <ATen/ATen.h>

#include "runtime/config/section.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kIgnore = -100;  // as torch.nn.CrossEntropyLoss

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

class MeanSquaredError : public Loss {
 public:
  std::string name() const override { return "mean_squared_error"; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    expect_same_shape(name(), output, targets);
  }
  double denominator(const at::Tensor& targets) const override { return static_cast<double>(targets.numel()); }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    return at::mse_loss(output.to(at::kFloat), targets, at::Reduction::Sum);
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
  double denominator(const at::Tensor& targets) const override {
    return static_cast<double>(targets.ne(kIgnore).sum().item<std::int64_t>());
  }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor logits = output.reshape({-1, output.size(-1)}).to(at::kFloat);
    return at::cross_entropy_loss(logits, targets.reshape({-1}), /*weight=*/{}, at::Reduction::Sum, kIgnore);
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
  double denominator(const at::Tensor& targets) const override {
    return static_cast<double>(targets.ne(kIgnore).sum().item<std::int64_t>());
  }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    return at::cross_entropy_loss(output.to(at::kFloat), targets, /*weight=*/{}, at::Reduction::Sum, kIgnore);
  }
};

class BinaryCrossEntropy : public Loss {
 public:
  std::string name() const override { return "binary_cross_entropy"; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    expect_same_shape(name(), output, targets);
  }
  double denominator(const at::Tensor& targets) const override { return static_cast<double>(targets.numel()); }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    return at::binary_cross_entropy_with_logits(output.to(at::kFloat), targets, /*weight=*/{}, /*pos_weight=*/{},
                                                at::Reduction::Sum);
  }
};

}  // namespace

const std::vector<std::string>& loss_names() {
  static const std::vector<std::string> names = {"mean_squared_error", "sparse_categorical_cross_entropy",
                                                 "segmentation_cross_entropy", "binary_cross_entropy"};
  return names;
}

std::unique_ptr<Loss> make_loss(const std::string& name) {
  if (name == "mean_squared_error") return std::make_unique<MeanSquaredError>();
  if (name == "sparse_categorical_cross_entropy") return std::make_unique<SparseCategoricalCrossEntropy>();
  if (name == "segmentation_cross_entropy") return std::make_unique<SegmentationCrossEntropy>();
  if (name == "binary_cross_entropy") return std::make_unique<BinaryCrossEntropy>();
  throw UserError(
      concat("there is no loss '", name, "'; there are: ", join(loss_names()), did_you_mean(name, loss_names())));
}

}  // namespace lockstep
