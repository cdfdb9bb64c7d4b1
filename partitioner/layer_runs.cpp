// SPDX-License-Identifier: Apache-2.0
#include "partitioner/layer_runs.hpp"

#include <set>

namespace lockstep {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

/// Nothing is known of other stages: where it matters, they are where a stage needs least.
class Anywhere : public Surroundings {
 public:
  explicit Anywhere(bool apart) : apart_(apart) {}
  bool made_nearby(int) const override { return !apart_; }
  bool read_nearby(int) const override { return false; }

 private:
  bool apart_;
};

bool all_apart(const std::vector<PlannedWorker>& workers) {
  std::set<std::pair<int, std::string>> memories;
  for (const PlannedWorker& worker : workers) memories.emplace(worker.place.rank, worker.place.device);
  return memories.size() == workers.size();
}

}  // namespace

LayerRuns::LayerRuns(const CostModel& model, int kind, bool several)
    : model_(model), kind_(kind), apart_(!several && all_apart(model.problem().workers)), made_(at(model.layers())) {
  for (auto* sums : {&forward_us_, &input_grad_us_, &weight_grad_us_, &recompute_us_, &update_us_, &resident_bytes_})
    sums->assign(1, 0.0);
  for (int layer = 0; layer < model.layers(); ++layer) {
    const LayerCost& cost = model.cost(kind, layer);
    const bool backward = model.layer_has_backward(layer);
    const auto add = [](std::vector<double>& sums, double us) { sums.push_back(sums.back() + us); };
    add(forward_us_, cost.forward_us);
    add(input_grad_us_, backward ? cost.input_grad_us : 0.0);
    add(weight_grad_us_, model.computes_weights(layer) ? cost.weight_grad_us : 0.0);
    add(recompute_us_, backward && cost.recomputable ? cost.forward_us : 0.0);
    add(update_us_, model.update_us(kind, layer, layer + 1));
    add(resident_bytes_, model.resident_bytes(kind, layer, layer + 1, false));
  }
}

StageTimes LayerRuns::times(int first, int last) const {
  const auto between = [&](const std::vector<double>& sums) { return sums[at(last)] - sums[at(first)]; };
  return {between(forward_us_), between(input_grad_us_), between(weight_grad_us_), between(recompute_us_)};
}

const LayerRun& LayerRuns::run(int first, int last) {
  std::vector<const LayerRun*>& row = made_[at(first)];
  if (row.size() < at(last - first)) row.resize(at(last - first), nullptr);
  const LayerRun*& made = row[at(last - first - 1)];
  if (made != nullptr) return *made;
  LayerRun run;
  run.cost = model_.stage(kind_, first, last, Anywhere(apart_));
  run.has_backward = model_.has_backward(first, last);
  run.has_weight_grad = model_.has_weight_grad(first, last);
  run.resident_bytes = model_.resident_bytes(kind_, first, last, true);
  if (apart_) {
    run.values_bytes = model_.values_in_bytes(first, last);
    run.gradients_bytes = model_.gradients_in_bytes(first, last);
  }
  return *(made = &runs_.emplace_back(run));
}

std::vector<LayerRuns> runs_by_kind(const CostModel& model, bool several) {
  std::vector<LayerRuns> runs;
  for (int kind = 0; kind < model.kinds(); ++kind) runs.emplace_back(model, kind, several);
  return runs;
}

}  // namespace lockstep
