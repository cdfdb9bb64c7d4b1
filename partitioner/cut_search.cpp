// SPDX-License-Identifier: Apache-2.0
#include "partitioner/cut_search.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

namespace lockstep {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

/// Sums in another order than the simulator's come out a little different: a bound must not be above the truth.
constexpr double kBelow = 1 - 1e-12;

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

std::size_t at(Goal goal) {
  return static_cast<std::size_t>(goal);
}

}  // namespace

CutSearch::CutSearch(std::vector<LayerRuns>& runs, const ScheduleFacts& facts, std::vector<int> placement)
    : facts_(facts),
      model_(runs.front().model()),
      problem_(model_.problem()),
      placement_(std::move(placement)),
      layers_(model_.layers()),
      stages_(facts.stages()),
      several_(facts.stages() > facts.schedule().workers()),
      row_states_(at(facts.schedule().workers())) {
  for (const WorkerId row : facts.rows()) runs_.push_back(&runs[at(model_.kind_of(at(placement_[at(row.value())])))]);
  find_ways(runs);
}

/// The longest way through single layers, each on the worker that is the fastest for it: whatever the cut, no stage
/// that begins with the layer has a shorter one.
void CutSearch::find_ways(const std::vector<LayerRuns>& kinds) {
  const auto least_us = [&](int layer, const auto& us_of) {
    double least = kInfinite;
    for (int kind = 0; kind < model_.kinds(); ++kind)
      least = std::min(least, us_of(kinds[at(kind)].times(layer, layer + 1)) / model_.fastest(kind));
    return least;
  };
  ActionCounts gradient = facts_.last_gradient(0);
  for (int stage = 1; stage < stages_; ++stage) {
    gradient.weight_grads = std::min(gradient.weight_grads, facts_.last_gradient(stage).weight_grads);
    gradient.again = std::min(gradient.again, facts_.last_gradient(stage).again);
  }
  std::vector<double> there(at(layers_), 0.0), back(at(layers_), -kInfinite);
  back[0] = 0;  // stage 0 has it, and only it for certain
  for (int layer = 0; layer < layers_; ++layer)
    for (const CostModel::Read& read : model_.reads(layer)) {
      const LayerValue& value = model_.value(read.value);
      if (value.producer < 0 || value.producer == layer) continue;
      const double forward_us = least_us(value.producer, [](const StageTimes& from) { return from.forward_us; });
      there[at(layer)] = std::max(there[at(layer)], there[at(value.producer)] + forward_us);
      if (!value.has_gradient) continue;
      const double us = least_us(value.producer, [&](const StageTimes& from) {
        return from.input_grad_us + gradient.weight_grads * from.weight_grad_us + gradient.again * from.recompute_us;
      });
      back[at(layer)] = std::max(back[at(layer)], back[at(value.producer)] + us);
    }
  for (int layer = 0; layer < layers_; ++layer)
    way_us_.push_back(there[at(layer)] + (problem_.clip ? 0.0 : back[at(layer)]));
}

double CutSearch::stage_work_us(int stage, int first, int last) const {
  const StageTimes times = runs(stage).times(first, last);
  const ActionCounts& counts = facts_.whole_step(stage);
  const double us = counts.forwards * times.forward_us + counts.input_grads * times.input_grad_us +
                    counts.weight_grads * times.weight_grad_us + counts.again * times.recompute_us +
                    runs(stage).update_us(first, last);
  return kBelow * us / speed(stage);
}

/// Without other stages of the row.
double CutSearch::stage_us(int stage, int first, int last) const {
  const StageTimes times = runs(stage).times(first, last);
  double us = 0;
  for (const ActionCounts& counts : problem_.clip ? facts_.to_end(stage) : facts_.to_last_gradient(stage))
    if (counts.stage == stage)
      us = counts.forwards * times.forward_us + counts.input_grads * times.input_grad_us +
           counts.weight_grads * times.weight_grad_us + counts.again * times.recompute_us;
  return std::max(stage_work_us(stage, first, last), kBelow * (way_us_[at(first)] + us / speed(stage)));
}

double CutSearch::stage_peak_bytes(int stage, int first, int last) {
  const LayerRun& run = runs(stage).run(first, last);
  return kBelow * facts_.peak_bytes(stage, run.cost, run.has_backward, run.has_weight_grad, run.values_bytes,
                                    run.gradients_bytes);
}

CutSearch::RowState CutSearch::with(RowState row, int stage, int first, int last) {
  const LayerRun& run = runs(stage).run(first, last);
  row.resident_bytes += kBelow * (several_ ? runs(stage).resident_share_bytes(first, last) : run.resident_bytes);
  row.peak_bytes = std::max(row.peak_bytes, stage_peak_bytes(stage, first, last));
  return row;
}

double CutSearch::stage_bytes(int stage, int first, int last) {
  const RowState row = with({}, stage, first, last);
  return row.resident_bytes + row.peak_bytes;
}

double CutSearch::stage_bound(Goal goal, int stage, int first, int last) {
  if (goal == Goal::smallest) return stage_bytes(stage, first, last);
  if (stage_bytes(stage, first, last) > worker(stage).limit_bytes) return kInfinite;
  return goal == Goal::fastest ? stage_us(stage, first, last) : stage_work_us(stage, first, last);
}

void CutSearch::solve(Goal goal) {
  if (!least_[at(goal)].empty()) return;
  const int width = layers_ + 1;
  std::vector<double> least(at((stages_ + 1) * width), kInfinite);
  std::vector<int> end(least.size(), -1);
  least[at(stages_ * width + layers_)] = 0;
  for (int stage = stages_ - 1; stage >= 0; --stage) {
    const int left = stages_ - 1 - stage;  // stages after it, of at least one layer each
    for (int first = stage; first + left < layers_; ++first) {
      // Bytes are dearer to find out than times: only where they decide.
      std::vector<std::pair<double, int>> ends;  // what the end costs at least
      for (int last = first + 1; last + left <= layers_; ++last) {
        const double rest = least[at((stage + 1) * width + last)];
        const double standing = kBelow * runs(stage).resident_share_bytes(first, last);
        if (goal != Goal::smallest && standing > worker(stage).limit_bytes) break;
        const double own = goal == Goal::smallest   ? standing
                           : goal == Goal::balanced ? stage_work_us(stage, first, last)
                                                    : stage_us(stage, first, last);
        if (rest < kInfinite) ends.emplace_back(std::max(rest, own), last);
      }
      std::make_heap(ends.begin(), ends.end(), std::greater<>());
      double& best = least[at(stage * width + first)];
      while (!ends.empty() && ends.front().first < best) {
        const int last = ends.front().second;
        std::pop_heap(ends.begin(), ends.end(), std::greater<>());
        ends.pop_back();
        const double cost = std::max(least[at((stage + 1) * width + last)], stage_bound(goal, stage, first, last));
        if (cost >= best) continue;
        best = cost;
        end[at(stage * width + first)] = last;
      }
    }
  }
  least_[at(goal)] = std::move(least);
  end_[at(goal)] = std::move(end);
}

double CutSearch::least_bound(Goal goal) {
  solve(goal);
  return least_[at(goal)].front();
}

std::vector<int> CutSearch::best_bottleneck(Goal goal) {
  solve(goal);
  std::vector<int> counts;
  for (int stage = 0, first = 0; stage < stages_; ++stage) {
    const int last = end_[at(goal)][at(stage * (layers_ + 1) + first)];
    if (last < 0) return {};
    counts.push_back(last - first);
    first = last;
  }
  return counts;
}

bool CutSearch::candidates(Goal goal, double most, std::size_t most_cuts, long& most_steps,
                           std::vector<CandidateCut>& into) {
  solve(goal);
  std::fill(row_states_.begin(), row_states_.end(), RowState{});
  counts_.clear();
  const std::size_t before = into.size();
  const bool all = extend(goal, most, before + most_cuts, most_steps, 0, 0, into);
  std::stable_sort(into.begin() + static_cast<std::ptrdiff_t>(before), into.end(),
                   [](const CandidateCut& a, const CandidateCut& b) { return a.bound < b.bound; });
  return all;
}

bool CutSearch::extend(Goal goal, double most, std::size_t most_cuts, long& most_steps, int stage, int first,
                       std::vector<CandidateCut>& into) {
  if (stage == stages_) {
    const double whole = bound(goal, counts_);
    if (whole <= most) into.push_back({counts_, whole});
    return into.size() <= most_cuts;
  }
  const std::size_t row = at(facts_.rows()[at(stage)].value());
  const RowState before = row_states_[row];
  const int left = stages_ - 1 - stage;
  bool all = true;
  for (int last = left == 0 ? layers_ : first + 1; all && last + left <= layers_; ++last) {
    if (--most_steps < 0) return false;
    const double rest = least_[at(goal)][at((stage + 1) * (layers_ + 1) + last)];
    if (rest > most || rest == kInfinite) continue;
    if (goal == Goal::fastest && stage_us(stage, first, last) > most) break;
    const double work = before.work_us + stage_work_us(stage, first, last);
    if (goal == Goal::fastest && work > most) break;
    RowState now = with(before, stage, first, last);
    now.work_us = work;
    const double bytes = now.resident_bytes + now.peak_bytes;
    if (bytes > (goal == Goal::fastest ? worker(stage).limit_bytes : most)) continue;
    row_states_[row] = now;
    counts_.push_back(last - first);
    all = extend(goal, most, most_cuts, most_steps, stage + 1, last, into);
    counts_.pop_back();
  }
  row_states_[row] = before;
  return all;
}

bool CutSearch::may_fit(const std::vector<int>& layers_per_stage) {
  std::vector<RowState> rows(row_states_.size());
  for (int stage = 0, first = 0; stage < stages_; ++stage) {
    const int last = first + layers_per_stage[at(stage)];
    RowState& row = rows[at(facts_.rows()[at(stage)].value())];
    row = with(row, stage, first, last);
    if (row.resident_bytes + row.peak_bytes > worker(stage).limit_bytes) return false;
    first = last;
  }
  return true;
}

double CutSearch::bound(Goal goal, const std::vector<int>& layers_per_stage) {
  std::vector<RowState> rows(row_states_.size());
  for (int stage = 0, first = 0; stage < stages_; ++stage) {
    const int last = first + layers_per_stage[at(stage)];
    RowState& row = rows[at(facts_.rows()[at(stage)].value())];
    if (goal == Goal::smallest)
      row = with(row, stage, first, last);
    else
      row.work_us += stage_work_us(stage, first, last);
    first = last;
  }
  double most = 0;
  for (const RowState& row : rows) most = std::max(most, row.work_us + row.resident_bytes + row.peak_bytes);
  return goal == Goal::smallest ? most : std::max(most, period_bound(layers_per_stage));
}

// ---- how soon row 0 can begin the next step ----

LinkCost CutSearch::link(WorkerId from, WorkerId to) const {
  return problem_.links.between(worker_of_row(from).place, worker_of_row(to).place);
}

/// The header of a step is made when row 0 has ended the step before. From then on the first micro-batch has to come
/// down to a stage, that stage's row has to do its work, and the gradient of the last micro-batch has to come back to
/// stage 0.
double CutSearch::period_bound(const std::vector<int>& layers_per_stage) const {
  std::vector<int> stage_of(at(layers_));
  std::vector<StageTimes> stages;
  double update_us = 0;
  for (int stage = 0, first = 0; stage < stages_; ++stage) {
    const int last = first + layers_per_stage[at(stage)];
    std::fill(stage_of.begin() + first, stage_of.begin() + last, stage);
    StageTimes times = runs(stage).times(first, last);
    for (double* us : {&times.forward_us, &times.input_grad_us, &times.weight_grad_us, &times.recompute_us})
      *us /= speed(stage);
    stages.push_back(times);
    if (facts_.rows()[at(stage)] == facts_.rows().front())
      update_us += runs(stage).update_us(first, last) / speed(stage);
    first = last;
  }
  // arrives: when the first micro-batch is there. returns: from the end of the stage's last I until that of stage 0's.
  std::vector<double> arrives(at(stages_), 0.0), returns(at(stages_), -kInfinite);
  returns[0] = 0;
  for (int layer = 0; layer < layers_; ++layer) {
    const int to = stage_of[at(layer)];
    for (const CostModel::Read& read : model_.reads(layer)) {
      const LayerValue& value = model_.value(read.value);
      const int from = value.producer < 0 ? 0 : stage_of[at(value.producer)];
      if (from == to) continue;
      const WorkerId a = facts_.rows()[at(from)], b = facts_.rows()[at(to)];
      const auto transfer_us = [&](WorkerId sender, WorkerId receiver) {
        return sender == receiver ? 0.0 : link(sender, receiver).transfer_us(model_.value_bytes(read.value));
      };
      arrives[at(to)] = std::max(arrives[at(to)], arrives[at(from)] + stages[at(from)].forward_us + transfer_us(a, b));
      if (!value.has_gradient) continue;
      returns[at(to)] = std::max(returns[at(to)],
                                 transfer_us(b, a) + returns[at(from)] + work_us({facts_.last_gradient(from)}, stages));
    }
  }
  if (problem_.clip) return kBelow * norm_bound(stages, arrives, update_us);
  double most = 0;
  for (int stage = 0; stage < stages_; ++stage)
    most = std::max(most, arrives[at(stage)] + work_us(facts_.to_last_gradient(stage), stages) + returns[at(stage)]);
  return kBelow * (most + work_us(facts_.behind_last_gradient(), stages) + update_us);
}

/// With a global norm row 0 waits for the computes of all rows.
double CutSearch::norm_bound(const std::vector<StageTimes>& stages, const std::vector<double>& arrives,
                             double update_us) const {
  const WorkerId row_0(0);
  double most = 0, own = 0;
  for (int stage = 0; stage < stages_; ++stage) {
    const WorkerId row = facts_.rows()[at(stage)];
    const double end = arrives[at(stage)] + work_us(facts_.to_end(stage), stages);
    if (row == row_0) own = std::max(own, end);
    most = std::max(most, row == row_0 ? end : end + link(row, row_0).latency_us);
  }
  return problem_.post_validation ? std::max(most, own + update_us) : most + update_us;
}

}  // namespace lockstep
