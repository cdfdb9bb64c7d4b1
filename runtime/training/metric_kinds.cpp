// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/metric_kinds.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/layer/loss.hpp"
#include "runtime/training/cross_entropy.hpp"

namespace lockstep {
namespace {

using Numbers = std::vector<double>;

bool is_classes(const EntrySpec& targets) {
  return targets.dtype == at::kLong;
}

[[noreturn]] void fail(const EntrySpec& output, const EntrySpec& targets, const char* wanted) {
  throw ModelError(concat("the model puts out ", to_string(output), ", the targets are ", to_string(targets),
                          "; it wants ", wanted));
}

bool fits_classes(const EntrySpec& output, const EntrySpec& targets) {
  return is_classes(targets) && !output.sizes.empty() &&
         std::equal(output.sizes.begin(), output.sizes.end() - 1, targets.sizes.begin(), targets.sizes.end());
}

bool fits_numbers(const EntrySpec& output, const EntrySpec& targets) {
  return at::isFloatingType(targets.dtype) && output.sizes == targets.sizes;
}

void check_classes(const EntrySpec& output, const EntrySpec& targets) {
  if (!fits_classes(output, targets))
    fail(output, targets, "classes, int64, and an output with one number for each class");
}

void check_numbers(const EntrySpec& output, const EntrySpec& targets) {
  if (!fits_numbers(output, targets)) fail(output, targets, "numbers of the shape of the output");
}

void check_either(const EntrySpec& output, const EntrySpec& targets) {
  if (!fits_classes(output, targets) && !fits_numbers(output, targets))
    fail(output, targets, "classes with an output for each, or yes and no (0 and 1) of the shape of the output");
}

at::Tensor doubles(const at::Tensor& tensor) {
  return tensor.to(at::kDouble);
}

at::Tensor numbers(std::initializer_list<at::Tensor> scalars) {
  std::vector<at::Tensor> all;
  for (const at::Tensor& scalar : scalars) all.push_back(doubles(scalar).reshape({1}));
  return at::cat(all);
}

/// Targets that are classes, as rows: output [n, classes], targets [n], in which those that do not count are 0, and
/// what each counts, 0 or 1. No shape depends on values: a device would have to be waited for.
struct Rows {
  at::Tensor output, targets, counts;
};

Rows rows_of(const at::Tensor& output, const at::Tensor& targets) {
  const at::Tensor flat = targets.reshape({-1}), ignored = flat.eq(kIgnoredTarget);
  return {output.reshape({-1, output.size(-1)}), flat.masked_fill(ignored, 0), doubles(ignored.logical_not())};
}

/// Sums of `amounts` by index: double [count].
at::Tensor sums_by(const at::Tensor& indices, const at::Tensor& amounts, std::int64_t count) {
  return at::zeros({count}, amounts.options()).scatter_add(0, indices, amounts);
}

/// Of rows that are right: {right, all}.
at::Tensor right_of(const at::Tensor& right, const at::Tensor& counts) {
  return numbers({(right * counts).sum(), counts.sum()});
}

/// Labels of numbers: [n, labels].
at::Tensor by_label(const at::Tensor& tensor) {
  return tensor.dim() < 2 ? tensor.reshape({-1, 1}) : tensor.reshape({-1, tensor.size(-1)});
}

double ratio(double part, double whole) {
  return whole > 0 ? part / whole : NAN;
}

/// Of {sum, count}.
double mean_of(const Numbers& all) {
  return all.empty() ? NAN : ratio(all[0], all[1]);
}

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

/// Samples with a score and a yes or no for each label: appended, for the order of all of them counts. State: the
/// number of labels, then [n, labels] of scores and of targets, side by side; targets that do not count are NaN.
class OfScores : public Metric {
 public:
  using Scored = std::vector<std::pair<double, bool>>;
  using Area = double (*)(Scored& scored);
  using Curve = Numbers (*)(Scored& scored);
  OfScores(const char* name, Area area, Curve curve) : name_(name), area_(area), curve_(curve) {}
  std::string name() const override { return name_; }
  void check(const EntrySpec& output, const EntrySpec& targets) const override { check_either(output, targets); }
  at::Tensor state(const at::Tensor& output, const at::Tensor& targets) const override {
    at::Tensor scores, truths;
    if (targets.scalar_type() == at::kLong) {
      const Rows rows = rows_of(output, targets);
      scores = at::softmax(doubles(rows.output), -1);
      truths = at::zeros_like(scores).scatter(1, rows.targets.unsqueeze(1), 1.0);
      truths = truths.masked_fill(rows.counts.eq(0).unsqueeze(1), NAN);
    } else {
      scores = doubles(by_label(output));
      truths = doubles(by_label(targets).gt(0.5));
    }
    const at::Tensor labels = at::full({1}, static_cast<double>(scores.size(1)), scores.options());
    return at::cat({labels, at::cat({scores, truths}, 1).reshape({-1})});
  }
  void merge(Numbers& all, std::span<const double> more) const override {
    all.insert(all.end(), all.empty() ? more.begin() : more.begin() + 1, more.end());
  }
  double value(const Numbers& all) const override {
    if (all.size() < 2) return NAN;
    const auto labels = static_cast<std::size_t>(all[0]);
    double sum = 0;
    for (std::size_t label = 0; label < labels; ++label) {
      Scored scored = scored_of(all, label);
      sum += area_(scored);
    }
    return sum / static_cast<double>(labels);
  }
  /// Of one label: the curve.
  Numbers picture(const Numbers& all) const override {
    if (all.size() < 2 || all[0] != 1) return {};
    Scored scored = scored_of(all, 0);
    return curve_(scored);
  }

 private:
  static Scored scored_of(const Numbers& all, std::size_t label) {
    const auto labels = static_cast<std::size_t>(all[0]), samples = (all.size() - 1) / (2 * labels);
    Scored scored;
    scored.reserve(samples);
    for (std::size_t i = 0; i < samples; ++i) {
      const double* const row = all.data() + 1 + 2 * labels * i;
      if (!std::isnan(row[labels + label])) scored.emplace_back(row[label], row[labels + label] > 0);
    }
    return scored;
  }

  std::string name_;
  Area area_;
  Curve curve_;
};

/// Calls with how many are yes and no at each threshold, from the highest; those of one score come together.
template <typename Visit>
void each_threshold(std::vector<std::pair<double, bool>>& scored, const Visit& visit) {
  std::sort(scored.begin(), scored.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  for (std::size_t begin = 0, end = 0; begin < scored.size(); begin = end) {
    double yes = 0, no = 0;
    for (; end < scored.size() && scored[end].first == scored[begin].first; ++end) ++(scored[end].second ? yes : no);
    visit(yes, no);
  }
}

double area_under_roc(std::vector<std::pair<double, bool>>& scored) {
  double yes = 0, no = 0, area = 0;
  each_threshold(scored, [&](double more_yes, double more_no) {
    area += more_no * (yes + more_yes / 2);
    yes += more_yes;
    no += more_no;
  });
  return ratio(area, yes * no);
}

double average_precision(std::vector<std::pair<double, bool>>& scored) {
  double yes = 0, all = 0, sum = 0;
  each_threshold(scored, [&](double more_yes, double more_no) {
    yes += more_yes;
    all += more_yes + more_no;
    sum += more_yes * (yes / all);
  });
  return ratio(sum, yes);
}

/// x, y, x, y, ...: at most 101 of these points, the first and the last among them.
Numbers thinned(const std::vector<std::pair<double, double>>& points) {
  constexpr std::size_t most = 101;
  const std::size_t count = std::min(points.size(), most);
  Numbers picture;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [x, y] = points[count > 1 ? i * (points.size() - 1) / (count - 1) : 0];
    picture.insert(picture.end(), {x, y});
  }
  return picture;
}

/// Rate of false alarms, rate of hits. Nothing of one class alone.
Numbers roc_curve(std::vector<std::pair<double, bool>>& scored) {
  std::vector<std::pair<double, double>> points = {{0, 0}};
  each_threshold(scored, [&](double yes, double no) {
    points.emplace_back(points.back().first + no, points.back().second + yes);
  });
  const auto [all_no, all_yes] = points.back();
  if (all_no == 0 || all_yes == 0) return {};
  for (auto& [no, yes] : points) no /= all_no, yes /= all_yes;
  return thinned(points);
}

/// Recall, precision.
Numbers precision_curve(std::vector<std::pair<double, bool>>& scored) {
  std::vector<std::pair<double, double>> points;
  double yes = 0, all = 0;
  each_threshold(scored, [&](double more_yes, double more_no) {
    yes += more_yes;
    all += more_yes + more_no;
    points.emplace_back(yes, yes / all);
  });
  if (yes == 0) return {};
  for (auto& point : points) point.first /= yes;
  return thinned(points);
}

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
            [](const Section&) { return std::make_unique<OfScores>("roc_auc", area_under_roc, roc_curve); }},
           {"pr_auc", "average precision; of classes: each against the rest",
            [](const Section&) { return std::make_unique<OfScores>("pr_auc", average_precision, precision_curve); }},
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
