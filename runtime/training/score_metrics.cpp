// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/score_metrics.hpp"

#include "runtime/training/metric_parts.hpp"

namespace lockstep {
namespace {

using namespace metric_parts;

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

}  // namespace

std::unique_ptr<Metric> roc_auc() {
  return std::make_unique<OfScores>("roc_auc", area_under_roc, roc_curve);
}

std::unique_ptr<Metric> pr_auc() {
  return std::make_unique<OfScores>("pr_auc", average_precision, precision_curve);
}

}  // namespace lockstep
