// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/wiring.hpp"

#include <algorithm>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/schedule/schedule_error.hpp"
#include "runtime/schedule/schedule_run.hpp"

namespace lockstep {

int fewest_lanes(const Flow& flow) {
  return flow.to.value() - flow.from.value();
}

void check_fits(const Schedule& schedule, const Topology& topology) {
  const auto stages = static_cast<std::size_t>(topology.stages);
  LOCKSTEP_CHECK(topology.has_backward.size() == stages && topology.has_weight_grad.size() == stages, "topology sizes");
  for (const Flow& flow : topology.flows) {
    LOCKSTEP_CHECK(flow.from.valid() && flow.from < flow.to && flow.to.value() < topology.stages, "flow ", flow.from,
                   "->", flow.to);
    LOCKSTEP_CHECK(
        !flow.differentiable || !topology.has_backward[index(flow.from)] || topology.has_backward[index(flow.to)],
        "flow ", flow.from, "->", flow.to, " needs a gradient from a stage without backward");
  }
  if (schedule.stages != topology.stages) {
    throw ScheduleError(concat("schedule ", schedule.name, " has ", schedule.stages, " stages, the model was cut into ",
                               topology.stages));
  }
}

Wiring wiring_of(const Schedule& schedule, const Topology& topology, std::vector<int> memory_of_row) {
  check_fits(schedule, topology);
  Wiring wiring{row_of_stage(schedule), schedule.workers(), {}, std::move(memory_of_row)};
  const ScheduleRun run(schedule, topology);
  for (const Flow& flow : topology.flows) {
    int& lanes = wiring.lanes.emplace_back(1);
    if (wiring.row_of_stage[index(flow.from)] == wiring.row_of_stage[index(flow.to)]) continue;
    const int fewest = lanes = fewest_lanes(flow);
    if (!run.blocked().empty()) continue;
    lanes = std::max(lanes, run.lanes(Op::forward, flow.from, flow.to));
    if (flow.differentiable) lanes = std::max(lanes, run.lanes(Op::input_grad, flow.to, flow.from));
    lanes = std::min(lanes, std::max(schedule.micro_batches, fewest));
  }
  return wiring;
}

std::vector<WorkerId> rows_holding(const Shared& shared, const Wiring& wiring) {
  std::vector<WorkerId> rows;
  for (const StageId stage : shared.holders) rows.push_back(wiring.row_of_stage[index(stage)]);
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

}  // namespace lockstep
