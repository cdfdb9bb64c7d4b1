// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/losses.hpp"

#include <ATen/ATen.h>

#include <limits>

#include "runtime/config/section.hpp"
#include "runtime/device/staging.hpp"
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

TargetDomain class_indices(std::int64_t classes, std::int64_t ignored) {
  return {
      .least = 0,
      .most = static_cast<double>(classes - 1),
      .ignored = ignored,
      .text = concat("classes from 0 to ", classes - 1, ", as many as the model puts out, or ", ignored, " (ignored)"),
      .advice = "count classes from 0: subtract 1 from labels 1, 2, 3, ..., or give the model more outputs"};
}

TargetDomain finite_numbers() {
  return {.least = std::numeric_limits<float>::lowest(),
          .most = std::numeric_limits<float>::max(),
          .text = "finite numbers",
          .advice = "leave such samples out"};
}

TargetDomain yes_or_no() {
  return {.least = 0,
          .most = 1,
          .text = "numbers from 0 to 1",
          .advice =
              "map labels -1 and 1 to 0 and 1, divide values 0 to 255 by 255, and use "
              "sparse_categorical_cross_entropy for classes 0, 1, 2, ..."};
}

/// [rows] of [rows, ...], or of [rows * places].
at::Tensor sums_of_samples(const at::Tensor& each, std::int64_t rows) {
  return each.reshape({rows, -1}).sum(-1);
}

at::Tensor reduced(const at::Tensor& each, std::int64_t reduction) {
  return reduction == at::Reduction::Sum ? each.sum() : each;
}

/// Targets are floating-point numbers of the output's shape.
class OfNumbers : public Loss {
 public:
  OfNumbers(const char* name, TargetDomain domain) : name_(name), domain_(std::move(domain)) {}
  std::string name() const override { return name_; }
  TargetDomain domain(const EntrySpec&) const override { return domain_; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    expect_same_shape(name(), output, targets);
  }
  double denominator(const at::Tensor& targets) const override { return static_cast<double>(targets.numel()); }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor wide = for_loss(output);
    return of(wide, targets.to(wide.scalar_type()), at::Reduction::Sum);
  }
  bool takes_weights() const override { return true; }
  at::Tensor denominators(const at::Tensor& targets) const override {
    const double each = denominator(targets) / static_cast<double>(targets.size(0));
    return at::full({targets.size(0)}, each, at::kDouble);
  }
  at::Tensor numerators(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor wide = for_loss(output);
    return sums_of_samples(of(wide, targets.to(wide.scalar_type()), at::Reduction::None), output.size(0));
  }

 protected:
  /// Both of one dtype. `reduction`: of at::Reduction, Sum or None.
  virtual at::Tensor of(const at::Tensor& output, const at::Tensor& targets, std::int64_t reduction) const = 0;

 private:
  std::string name_;
  TargetDomain domain_;
};

class MeanSquaredError : public OfNumbers {
 public:
  MeanSquaredError() : OfNumbers("mean_squared_error", finite_numbers()) {}
  at::Tensor of(const at::Tensor& output, const at::Tensor& targets, std::int64_t reduction) const override {
    return at::mse_loss(output, targets, reduction);
  }
};

class MeanAbsoluteError : public OfNumbers {
 public:
  MeanAbsoluteError() : OfNumbers("mean_absolute_error", finite_numbers()) {}
  at::Tensor of(const at::Tensor& output, const at::Tensor& targets, std::int64_t reduction) const override {
    return at::l1_loss(output, targets, reduction);
  }
};

class Huber : public OfNumbers {
 public:
  explicit Huber(const Section& options)
      : OfNumbers("huber", finite_numbers()), delta_(options.get<double>("delta", 1.0, above(0.0))) {}
  at::Tensor of(const at::Tensor& output, const at::Tensor& targets, std::int64_t reduction) const override {
    return at::huber_loss(output, targets, reduction, delta_);
  }

 private:
  double delta_;
};

/// What remains of certainty where `smoothing` is spread over yes and no.
at::Tensor smoothed(const at::Tensor& targets, double smoothing) {
  return smoothing > 0 ? targets * (1 - smoothing) + smoothing / 2 : targets;
}

/// Targets may also be class indices, 0 and 1, of rows with one output each.
class OfYesOrNo : public OfNumbers {
 public:
  explicit OfYesOrNo(const char* name) : OfNumbers(name, yes_or_no()) {}
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    OfNumbers::check(output, for_metrics(output, targets));
  }
  EntrySpec for_metrics(const EntrySpec& output, const EntrySpec& targets) const override {
    EntrySpec numbers = targets;
    const bool one_each = output.sizes.size() == targets.sizes.size() + 1 && output.sizes.back() == 1;
    if (targets.dtype == at::kLong && one_each) numbers.sizes = output.sizes;
    if (targets.dtype == at::kLong) numbers.dtype = at::kFloat;
    return numbers;
  }
  at::Tensor for_metrics(const at::Tensor& output, const at::Tensor& targets) const override {
    return targets.scalar_type() == at::kLong ? targets.to(at::kFloat).reshape(output.sizes()) : targets;
  }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    return OfNumbers::numerator(output, for_metrics(output, targets));
  }
  at::Tensor numerators(const at::Tensor& output, const at::Tensor& targets) const override {
    return OfNumbers::numerators(output, for_metrics(output, targets));
  }
};

class BinaryCrossEntropy : public OfYesOrNo {
 public:
  explicit BinaryCrossEntropy(const Section& options)
      : OfYesOrNo("binary_cross_entropy"),
        positive_weight_(options.get<double>("positive_weight", 1.0, above(0.0))),
        smoothing_(options.get<double>("label_smoothing", 0.0, fraction_below_one())) {}
  std::string activation() const override { return "sigmoid"; }
  at::Tensor of(const at::Tensor& output, const at::Tensor& targets, std::int64_t reduction) const override {
    at::Tensor weight;
    if (positive_weight_ != 1.0) weight = at::full({}, positive_weight_, output.options());
    return at::binary_cross_entropy_with_logits(output, smoothed(targets, smoothing_), /*weight=*/{}, weight,
                                                reduction);
  }

 private:
  double positive_weight_, smoothing_;
};

class Hinge : public OfYesOrNo {
 public:
  explicit Hinge(bool squared) : OfYesOrNo(squared ? "squared_hinge" : "hinge"), squared_(squared) {}
  at::Tensor of(const at::Tensor& output, const at::Tensor& targets, std::int64_t reduction) const override {
    const at::Tensor missing = (1 - (2 * targets - 1) * output).clamp_min(0);
    return reduced(squared_ ? missing.square() : missing, reduction);
  }

 private:
  bool squared_;
};

/// Targets are a share for each class, last, of which one row has all.
class OfShares : public OfNumbers {
 public:
  explicit OfShares(const char* name) : OfNumbers(name, yes_or_no()) {}
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    OfNumbers::check(output, targets);
    if (output.sizes.size() < 2)
      throw ModelError(concat("the model puts out ", to_string(output), "; ", name(), " wants [..., classes]"));
  }
  double denominator(const at::Tensor& targets) const override {
    return static_cast<double>(targets.numel()) / static_cast<double>(targets.size(-1));
  }
};

class CategoricalHinge : public OfShares {
 public:
  CategoricalHinge() : OfShares("categorical_hinge") {}
  at::Tensor of(const at::Tensor& output, const at::Tensor& targets, std::int64_t reduction) const override {
    const at::Tensor own = (targets * output).sum(-1), other = ((1 - targets) * output).amax(-1);
    return reduced((other - own + 1).clamp_min(0), reduction);
  }
};

class CategoricalCrossEntropy : public OfShares {
 public:
  explicit CategoricalCrossEntropy(const Section& options)
      : OfShares("categorical_cross_entropy"),
        smoothing_(options.get<double>("label_smoothing", 0.0, fraction_below_one())) {}
  std::string activation() const override { return "softmax"; }
  at::Tensor of(const at::Tensor& output, const at::Tensor& targets, std::int64_t reduction) const override {
    at::Tensor shares = targets;
    if (smoothing_ > 0) shares = targets * (1 - smoothing_) + smoothing_ / static_cast<double>(targets.size(-1));
    return -reduced(shares * at::log_softmax(output, -1), reduction);
  }

 private:
  double smoothing_;
};

/// What the losses over class indices have in common.
class OfClassIndices : public Loss {
 public:
  explicit OfClassIndices(const Section& options)
      : ignored_(options.get<std::int64_t>("ignore_index", kIgnoredTarget)),
        smoothing_(options.get<double>("label_smoothing", 0.0, fraction_below_one())),
        weights_(options.list<double>("class_weights", {}, at_least(0.0))) {}
  std::string activation() const override { return "softmax"; }
  using Loss::for_metrics;
  at::Tensor for_metrics(const at::Tensor& /*output*/, const at::Tensor& targets) const override {
    return known(targets);
  }
  double denominator(const at::Tensor& targets) const override {
    const at::Tensor counts = targets.ne(ignored_);
    if (weights_.empty()) return static_cast<double>(counts.sum().item<std::int64_t>());
    return weights(at::kDouble, at::kCPU).index_select(0, targets.masked_select(counts)).sum().item<double>();
  }
  bool takes_weights() const override { return true; }
  at::Tensor denominators(const at::Tensor& targets) const override {
    const at::Tensor flat = targets.reshape({-1}), counts = flat.ne(ignored_);
    at::Tensor each = counts.to(at::kDouble);
    if (!weights_.empty())
      each = each * weights(at::kDouble, at::kCPU).index_select(0, flat.masked_fill(counts.logical_not(), 0));
    return sums_of_samples(each, targets.size(0));
  }

 protected:
  TargetDomain of_classes(std::int64_t classes) const { return class_indices(classes, ignored_); }
  void check_weights(std::int64_t classes) const {
    if (!weights_.empty() && static_cast<std::int64_t>(weights_.size()) != classes)
      throw ModelError(concat("the model puts out ", classes, " classes, class_weights has ", weights_.size(),
                              " numbers, expected one for each class"));
  }
  bool is_plain() const { return smoothing_ == 0 && weights_.empty(); }
  /// Targets as LibTorch takes them.
  at::Tensor known(const at::Tensor& targets) const {
    return ignored_ == kIgnoredTarget ? targets : targets.masked_fill(targets.eq(ignored_), kIgnoredTarget);
  }
  /// logits [rows, classes], targets int64 [rows]: with smoothing and weights, as torch.nn.CrossEntropyLoss.
  at::Tensor of_rows(const at::Tensor& logits, const at::Tensor& targets,
                     std::int64_t reduction = at::Reduction::Sum) const {
    const at::Tensor wide = for_loss(logits);
    at::Tensor weight;
    if (!weights_.empty()) weight = weights(wide.scalar_type(), wide.device());
    return at::cross_entropy_loss(wide, targets, weight, reduction, kIgnoredTarget, smoothing_);
  }

 private:
  at::Tensor weights(at::ScalarType dtype, at::Device device) const {
    return to_device(at::tensor(weights_, at::kDouble).to(dtype), device);
  }

  std::int64_t ignored_;
  double smoothing_;
  std::vector<double> weights_;
};

class SparseCategoricalCrossEntropy : public OfClassIndices {
 public:
  using OfClassIndices::OfClassIndices;
  std::string name() const override { return "sparse_categorical_cross_entropy"; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    std::vector<std::int64_t> expected = output.sizes;
    if (!expected.empty()) expected.pop_back();
    if (output.sizes.size() < 2 || expected != targets.sizes || targets.dtype != at::kLong)
      throw ModelError(concat("the model puts out ", to_string(output), ", the targets are ", to_string(targets), "; ",
                              name(), " wants an output [..., classes] and int64 targets [...]"));
    expect_classes(output.sizes.back(), targets);
    check_weights(output.sizes.back());
  }
  TargetDomain domain(const EntrySpec& output) const override { return of_classes(output.sizes.back()); }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor rows = output.reshape({-1, output.size(-1)}), wanted = known(targets).reshape({-1});
    return is_plain() ? cross_entropy_of_rows(rows, wanted, cross_entropy_bytes(output.device()))
                      : of_rows(rows, wanted);
  }
  at::Tensor numerators(const at::Tensor& output, const at::Tensor& targets) const override {
    return sums_of_samples(
        of_rows(output.reshape({-1, output.size(-1)}), known(targets).reshape({-1}), at::Reduction::None),
        output.size(0));
  }
};

class SegmentationCrossEntropy : public OfClassIndices {
 public:
  using OfClassIndices::OfClassIndices;
  std::string name() const override { return "segmentation_cross_entropy"; }
  std::int64_t class_dimension() const override { return 1; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    std::vector<std::int64_t> expected = output.sizes;
    if (expected.size() > 1) expected.erase(expected.begin() + 1);
    if (output.sizes.size() < 3 || expected != targets.sizes || targets.dtype != at::kLong)
      throw ModelError(
          concat("the model puts out ", to_string(output), ", the targets are ", to_string(targets), "; ", name(),
                 " wants an output [rows, classes, height, width] and int64 targets [rows, height, ", "width]"));
    expect_classes(output.sizes[1], targets);
    check_weights(output.sizes[1]);
  }
  TargetDomain domain(const EntrySpec& output) const override { return of_classes(output.sizes[1]); }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor wanted = known(targets);
    return is_plain() ? cross_entropy_of_pixels(output, wanted)
                      : of_rows(output.movedim(1, -1).reshape({-1, output.size(1)}), wanted.reshape({-1}));
  }
  at::Tensor numerators(const at::Tensor& output, const at::Tensor& targets) const override {
    return sums_of_samples(
        of_rows(output.movedim(1, -1).reshape({-1, output.size(1)}), known(targets).reshape({-1}), at::Reduction::None),
        output.size(0));
  }
};

template <typename L>
LossKind with_options(const char* name, const char* summary) {
  return {name, summary, [](const Section& options) { return std::make_unique<L>(options); }};
}

template <typename L>
LossKind plain(const char* name, const char* summary) {
  return {name, summary, [] { return std::make_unique<L>(); }};
}

}  // namespace

Table<LossKind> loss_kinds() {
  return {
      "loss",
      {plain<MeanSquaredError>("mean_squared_error", "regression: numbers, any shape"),
       plain<MeanAbsoluteError>("mean_absolute_error", "regression with outliers: numbers, any shape"),
       with_options<Huber>("huber", "delta: 1.0; squares below delta, lines above: numbers, any shape"),
       with_options<SparseCategoricalCrossEntropy>(
           "sparse_categorical_cross_entropy",
           "a class index per row or token, -100 is ignored; output: a logit per class, last"),
       with_options<CategoricalCrossEntropy>(
           "categorical_cross_entropy", "a share per class (one-hot or soft), last; output: a logit per class, last"),
       with_options<SegmentationCrossEntropy>(
           "segmentation_cross_entropy",
           "a class index per pixel, -100 is ignored; output: [rows, classes, height, width]"),
       with_options<BinaryCrossEntropy>("binary_cross_entropy",
                                        "yes or no, targets from 0 to 1, any shape; output: logits"),
       {"hinge", "yes or no, targets 0 or 1, any shape; output: a margin",
        [] { return std::make_unique<Hinge>(false); }},
       {"squared_hinge", "the same with squared margins", [] { return std::make_unique<Hinge>(true); }},
       plain<CategoricalHinge>("categorical_hinge", "one-hot classes, last; output: a margin per class, last")}};
}

}  // namespace lockstep
