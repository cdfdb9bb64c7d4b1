// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/metric_kinds.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/training/cross_entropy.hpp"
#include "runtime/training/metric_parts.hpp"
#include "runtime/training/score_metrics.hpp"

namespace lockstep {
namespace {

using namespace metric_parts;

class Accuracy : public Metric {
 public:
  std::string name() const override { return "accuracy"; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override { check_either(output, targets); }
  at::Tensor state(const at::Tensor& output, const at::Tensor& targets) const override {
    if (targets.scalar_type() != at::kLong) {
      const at::Tensor right = output.gt(0).eq(targets.gt(0.5));
      return right_of(right, at::ones_like(output, output.options().dtype(at::kDouble)));
    }
    const Rows rows = rows_of(output, targets);
    return right_of(rows.output.argmax(-1).eq(rows.targets), rows.counts);
  }
  double value(const Numbers& all) const override { return mean_of(all); }
};

class TopK : public Metric {
 public:
  explicit TopK(const Section& options) : k_(options.get<std::int64_t>("k", 5, at_least<std::int64_t>(1))) {}
  std::string name() const override { return concat("top_", k_, "_accuracy"); }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    check_classes(output, targets);
    if (output.sizes.back() < k_)
      throw ModelError(concat("k is ", k_, ", but the model puts out ", output.sizes.back(), " classes"));
  }
  at::Tensor state(const at::Tensor& output, const at::Tensor& targets) const override {
    const Rows rows = rows_of(output, targets);
    const at::Tensor own = rows.output.gather(1, rows.targets.unsqueeze(1));
    return right_of(rows.output.gt(own).sum(1).lt(k_), rows.counts);
  }
  double value(const Numbers& all) const override { return mean_of(all); }

 private:
  std::int64_t k_;
};

/// Of each class or label: right, predicted and there.
at::Tensor class_counts(const at::Tensor& output, const at::Tensor& targets) {
  if (targets.scalar_type() != at::kLong) {
    const at::Tensor predicted = by_label(output).gt(0), there = by_label(targets).gt(0.5);
    return doubles(at::cat({predicted.logical_and(there).sum(0), predicted.sum(0), there.sum(0)}));
  }
  const Rows rows = rows_of(output, targets);
  const std::int64_t classes = output.size(-1);
  const at::Tensor predicted = rows.output.argmax(-1);
  return at::cat({sums_by(rows.targets, rows.counts * predicted.eq(rows.targets), classes),
                  sums_by(predicted, rows.counts, classes), sums_by(rows.targets, rows.counts, classes)});
}

/// Of one class, or of sums over some.
struct Counts {
  double right = 0, predicted = 0, there = 0;
  bool occurs() const { return predicted > 0 || there > 0; }
};

std::vector<Counts> counts_in(const Numbers& all) {
  const std::size_t classes = all.size() / 3;
  std::vector<Counts> counts;
  for (std::size_t i = 0; i < classes; ++i) counts.push_back({all[i], all[classes + i], all[2 * classes + i]});
  return counts;
}

double or_zero(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

double precision_of(const Counts& counts) {
  return or_zero(counts.right, counts.predicted);
}
double recall_of(const Counts& counts) {
  return or_zero(counts.right, counts.there);
}
double f1_of(const Counts& counts) {
  return or_zero(2 * counts.right, counts.predicted + counts.there);
}
double iou_of(const Counts& counts) {
  return or_zero(counts.right, counts.predicted + counts.there - counts.right);
}

class OfClasses : public Metric {
 public:
  using Of = double (*)(const Counts&);
  OfClasses(const char* name, Of of, const Section& options)
      : name_(name),
        of_(of),
        average_(options.get<std::string>("average", "macro", one_of({"macro", "micro", "weighted"}))),
        is_named_(options.has("average")) {}
  std::string name() const override { return is_named_ ? concat(name_, "_", average_) : name_; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override { check_either(output, targets); }
  at::Tensor state(const at::Tensor& output, const at::Tensor& targets) const override {
    return class_counts(output, targets);
  }
  double value(const Numbers& all) const override {
    const std::vector<Counts> counts = counts_in(all);
    if (counts.size() == 1) return of_(counts[0]);
    double sum = 0, weights = 0;
    Counts together;
    for (const Counts& of_class : counts) {
      together.right += of_class.right;
      together.predicted += of_class.predicted;
      together.there += of_class.there;
      const double weight = average_ == "weighted" ? of_class.there : of_class.occurs() ? 1 : 0;
      sum += weight * of_(of_class);
      weights += weight;
    }
    if (average_ == "micro") return together.occurs() ? of_(together) : NAN;
    return ratio(sum, weights);
  }

 private:
  std::string name_;
  Of of_;
  std::string average_;
  bool is_named_;
};

class ConfusionMatrix : public Metric {
 public:
  std::string name() const override { return "confusion_matrix"; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override {
    check_either(output, targets);
    constexpr std::int64_t most = 1000;
    if (is_classes(targets) && output.sizes.back() > most)
      throw ModelError(concat("of ", output.sizes.back(), " classes, expected at most ", most));
    if (!is_classes(targets) && (output.sizes.size() > 1 && output.sizes.back() > 1))
      throw ModelError(concat("of ", output.sizes.back(), " labels, expected classes or one label"));
  }
  at::Tensor state(const at::Tensor& output, const at::Tensor& targets) const override {
    if (targets.scalar_type() != at::kLong)
      return sums_by((targets.gt(0.5).to(at::kLong) * 2 + output.gt(0)).reshape({-1}),
                     at::ones({output.numel()}, output.options().dtype(at::kDouble)), 4);
    const Rows rows = rows_of(output, targets);
    const std::int64_t classes = output.size(-1);
    return sums_by(rows.targets * classes + rows.output.argmax(-1), rows.counts, classes * classes);
  }
  double value(const Numbers& all) const override {
    const auto classes = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(all.size()))));
    double right = 0;
    for (std::size_t i = 0; i < classes; ++i) right += all[i * classes + i];
    return ratio(right, std::accumulate(all.begin(), all.end(), 0.0));
  }
  Numbers picture(const Numbers& all) const override { return all; }
};

class MeanError : public Metric {
 public:
  explicit MeanError(bool squared) : squared_(squared) {}
  std::string name() const override { return squared_ ? "root_mean_squared_error" : "mean_absolute_error"; }
  bool more_is_better() const override { return false; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override { check_numbers(output, targets); }
  at::Tensor state(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor error = doubles(output) - doubles(targets);
    const at::Tensor count = at::full({}, static_cast<double>(error.numel()), error.options());
    return numbers({squared_ ? error.square().sum() : error.abs().sum(), count});
  }
  double value(const Numbers& all) const override { return squared_ ? std::sqrt(mean_of(all)) : mean_of(all); }

 private:
  bool squared_;
};

/// State: of each column count, mean, sum of squares about it, sum of squared errors; merged as in Chan, Golub,
/// LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
class R2 : public Metric {
 public:
  std::string name() const override { return "r2"; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override { check_numbers(output, targets); }
  at::Tensor state(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor wanted = doubles(by_label(targets)), error = doubles(by_label(output)) - wanted;
    const at::Tensor mean = wanted.mean(0);
    return at::stack({at::full_like(mean, static_cast<double>(wanted.size(0))), mean, (wanted - mean).square().sum(0),
                      error.square().sum(0)},
                     1)
        .reshape({-1});
  }
  void merge(Numbers& all, std::span<const double> more) const override {
    if (all.empty()) {
      all.assign(more.begin(), more.end());
      return;
    }
    for (std::size_t at = 0; at < all.size(); at += 4) {
      const double count = all[at] + more[at], apart = more[at + 1] - all[at + 1];
      all[at + 2] += more[at + 2] + apart * apart * all[at] * more[at] / count;
      all[at + 1] += apart * more[at] / count;
      all[at + 3] += more[at + 3];
      all[at] = count;
    }
  }
  double value(const Numbers& all) const override {
    double sum = 0;
    for (std::size_t at = 0; at < all.size(); at += 4) sum += 1 - ratio(all[at + 3], all[at + 2]);
    return all.empty() ? NAN : sum / static_cast<double>(all.size() / 4);
  }
};

class Perplexity : public Metric {
 public:
  std::string name() const override { return "perplexity"; }
  bool more_is_better() const override { return false; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override { check_classes(output, targets); }
  at::Tensor state(const at::Tensor& output, const at::Tensor& targets) const override {
    const at::Tensor flat = targets.reshape({-1});
    return numbers(
        {cross_entropy_of_rows(output.reshape({-1, output.size(-1)}), flat, cross_entropy_bytes(output.device())),
         flat.ne(kIgnoredTarget).sum()});
  }
  double value(const Numbers& all) const override { return std::exp(mean_of(all)); }
};

template <typename M>
MetricKind plain(const char* name, const char* summary) {
  return {name, summary, [](const Section&) { return std::make_unique<M>(); }};
}

MetricKind of_classes(const char* name, const char* summary, OfClasses::Of of) {
  return {name, summary, [=](const Section& options) { return std::make_unique<OfClasses>(name, of, options); }};
}

}  // namespace

Table<MetricKind> metric_kinds() {
  return {"metric",
          {plain<Accuracy>("accuracy", "the share of predictions that are right"),
           {"top_k_accuracy", "k: 5; the share of targets that are among the k largest outputs",
            [](const Section& options) { return std::make_unique<TopK>(options); }},
           of_classes("precision", "right / predicted; average: macro, micro or weighted", precision_of),
           of_classes("recall", "right / there; average: macro, micro or weighted", recall_of),
           of_classes("f1", "the harmonic mean of precision and recall; average: macro, micro or weighted", f1_of),
           {"roc_auc", "the area under the ROC curve; of classes: each against the rest",
            [](const Section&) { return roc_auc(); }},
           {"pr_auc", "average precision; of classes: each against the rest", [](const Section&) { return pr_auc(); }},
           plain<ConfusionMatrix>("confusion_matrix", "how often which class is taken for which"),
           {"mean_absolute_error", "the mean of |output - target|",
            [](const Section&) { return std::make_unique<MeanError>(false); }},
           {"root_mean_squared_error", "the root of the mean of (output - target)^2",
            [](const Section&) { return std::make_unique<MeanError>(true); }},
           plain<R2>("r2", "1 - squared errors / squared deviations from the mean target"),
           plain<Perplexity>("perplexity", "exp of the mean cross-entropy"),
           {"mean_iou", "intersection over union of each class, their mean",
            [](const Section&) { return std::make_unique<OfClasses>("mean_iou", iou_of, Section()); }}}};
}

}  // namespace lockstep
