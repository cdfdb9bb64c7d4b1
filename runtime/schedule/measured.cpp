// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/measured.hpp"

#include <algorithm>

#include "runtime/base/check.hpp"
#include "runtime/base/median.hpp"

namespace lockstep {

CostMeter::CostMeter(const Program& program)
    : program_(program),
      sums_(program.wiring.row_of_stage.size()),
      recomputed_(program.wiring.row_of_stage.size(), 0),
      in_flight_bytes_(program.rows.size(), 0.0) {
  costs_.update_us.assign(program.rows.size(), 0.0);
  costs_.reduce_us = costs_.update_us;
  forwards_.assign(sums_.size(), 0);
  for (const std::vector<Instruction>& row : program.rows)
    for (const Instruction& instruction : row)
      if (instruction.kind == InstructionKind::compute && instruction.action.op == Op::forward)
        ++forwards_[index(instruction.action.stage)];
}

void CostMeter::add(const StepResult& result) {
  if (result.mode != Mode::train || result.micro_batches != program_.micro_batches) return;
  ++steps_;
  if (recent_layer_us_.size() == kRecentSteps) recent_layer_us_.pop_front();
  std::vector<std::vector<double>>& layers = recent_layer_us_.emplace_back(sums_.size());
  for (const WorkerReport& worker : result.workers) {
    const auto row = static_cast<std::size_t>(worker.row);
    in_flight_bytes_.at(row) = std::max(in_flight_bytes_.at(row), static_cast<double>(worker.in_flight_bytes));
    costs_.update_us[row] += worker.update_us;
    costs_.reduce_us[row] += worker.reduce_us;
    for (const StageReport& stage : worker.stages) {
      StageReport& sum = sums_.at(static_cast<std::size_t>(stage.stage));
      recomputed_[static_cast<std::size_t>(stage.stage)] += stage.recomputed;
      sum.forward_us += stage.forward_us;
      sum.input_grad_us += stage.input_grad_us;
      sum.weight_grad_us += stage.weight_grad_us;
      sum.recompute_us += stage.recompute_us;
      sum.activation_bytes = stage.activation_bytes;
      sum.weight_grad_bytes = stage.weight_grad_bytes;
      sum.recompute_activation_bytes = stage.recompute_activation_bytes;
      layers[static_cast<std::size_t>(stage.stage)] = stage.layer_us;
    }
  }
}

std::vector<double> CostMeter::layer_us() const {
  LOCKSTEP_CHECK(steps_ > 0, "times of no step");
  std::vector<double> medians;
  const auto stages = static_cast<std::size_t>(program_.topology.stages_of_replica());  // the others' are alike
  for (std::size_t stage = 0; stage < stages; ++stage)
    for (std::size_t layer = 0; layer < recent_layer_us_.back()[stage].size(); ++layer) {
      std::vector<double> steps;
      for (const auto& step : recent_layer_us_) steps.push_back(step[stage][layer]);
      medians.push_back(median(std::move(steps)));
    }
  return medians;
}

namespace {

/// A difference of two readings: a forward that lets go of more than it keeps (a received message, say) is below 0.
double at_least_none(std::int64_t bytes) {
  return static_cast<double>(std::max<std::int64_t>(bytes, 0));
}

}  // namespace

Costs CostMeter::costs() const {
  LOCKSTEP_CHECK(steps_ > 0, "costs of no step");
  Costs costs = costs_;
  for (std::size_t s = 0; s < sums_.size(); ++s) {
    const double each = 1.0 / (static_cast<double>(steps_) * std::max(forwards_[s], 1));
    const StageReport& sum = sums_[s];
    StageCost cost;
    cost.forward_us = sum.forward_us * each;
    cost.input_grad_us = sum.input_grad_us * each;
    cost.weight_grad_us = sum.weight_grad_us * each;
    cost.recompute_us = recomputed_[s] > 0 ? sum.recompute_us / recomputed_[s] : 0.0;
    cost.activation_bytes = at_least_none(sum.activation_bytes);
    cost.weight_grad_bytes = at_least_none(sum.weight_grad_bytes);
    cost.recompute_activation_bytes = at_least_none(sum.recompute_activation_bytes);
    costs.stages.push_back(cost);
  }
  for (auto* by_row : {&costs.update_us, &costs.reduce_us})
    for (double& us : *by_row) us /= steps_;
  return costs;
}

}  // namespace lockstep
