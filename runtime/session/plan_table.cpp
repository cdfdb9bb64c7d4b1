// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/plan_table.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/base/text_table.hpp"

namespace lockstep {
namespace {

std::string shortened(const std::string& name) {
  constexpr std::size_t most = 16;
  return name.size() <= most ? name : name.substr(0, most - 2) + "..";
}

Cell number(int value) {
  return {std::to_string(value), static_cast<double>(value)};
}

/// "first .. last" layer of a stage.
std::string layers_of_stage(const PlanPrediction& p, std::size_t stage) {
  const std::size_t first = p.first_layer(stage), layers = static_cast<std::size_t>(p.stages[stage].layers);
  const std::string text = shortened(p.layers[first].name);
  return layers == 1 ? text : concat(text, " .. ", shortened(p.layers[first + layers - 1].name));
}

std::string stages_table(const PlanFile& plan, int width) {
  const PlanPrediction& p = *plan.predicted;
  std::vector<std::vector<Cell>> rows;
  for (std::size_t s = 0; s < plan.choice.layers_per_stage.size(); ++s) {  // the other replicas' are alike
    const PredictedStage& stage = p.stages[s];
    const StageCost& cost = p.costs.stages[s];
    const std::size_t worker = plan.choice.worker_of(static_cast<std::size_t>(stage.row));
    rows.push_back({number(static_cast<int>(s)),
                    number(static_cast<int>(worker)),
                    number(stage.layers),
                    {fixed_text(cost.forward_us * 1e-3, 3)},
                    {fixed_text(cost.input_grad_us * 1e-3, 3)},
                    {fixed_text(cost.weight_grad_us * 1e-3, 3)},
                    {count_text(stage.parameters)},
                    number(stage.in_flight),
                    {layers_of_stage(p, s)}});
  }
  using Kind = Column::Kind;
  return table({{"stage", Kind::list},
                {"worker", Kind::list},
                {"layers"},
                {"F ms"},
                {"I ms"},
                {"W ms"},
                {"parameters", Kind::same, true},
                {"in flight", Kind::range, true},
                {"first .. last", Kind::names, true}},
               rows, width);
}

std::string workers_table(const PlanFile& plan, int width) {
  const PlanPrediction& p = *plan.predicted;
  std::vector<std::vector<Cell>> rows;
  for (std::size_t row = 0; row < p.compute_us.size(); ++row) {
    const std::size_t index = plan.choice.worker_of(row);
    const PlannedWorker& worker = plan.workers[index];
    const bool limited = std::isfinite(worker.limit_bytes);
    const double used = limited ? 100 * p.peak_bytes[row] / worker.limit_bytes : 0;
    rows.push_back({number(static_cast<int>(index)),
                    number(worker.place.rank),
                    number(worker.place.host),
                    {worker.place.device},
                    {fixed_text(p.compute_us[row] * 1e-3, 2)},
                    {fixed_text(p.wait_us[row] * 1e-3, 2)},
                    {size_text(p.peak_bytes[row]), p.peak_bytes[row]},
                    {limited ? size_text(worker.limit_bytes) : "none"},
                    {limited ? fixed_text(used, 0) + " %" : "-", used}});
  }
  using Kind = Column::Kind;
  std::vector<Column> columns = {{"worker", Kind::list},
                                 {"rank", Kind::list, true},
                                 {"host", Kind::list, true},
                                 {"device", Kind::names},
                                 {"compute ms"},
                                 {"wait ms"},
                                 {"peak bytes", Kind::range},
                                 {"limit", Kind::same, true},
                                 {"used", Kind::range}};
  constexpr std::ptrdiff_t device = 3;
  if (!uses_devices(plan.workers)) {
    columns.erase(columns.begin() + device);
    for (std::vector<Cell>& row : rows) row.erase(row.begin() + device);
  }
  return table(columns, rows, width);
}

/// "cuda:0 is a cuda NVIDIA H100 80GB HBM3", a line for each device that is not the host.
std::string kinds_text(const PlanFile& plan) {
  std::string text;
  std::set<std::string> seen;
  for (const PlannedWorker& worker : plan.workers)
    if (worker.kind != worker.place.device && seen.insert(worker.place.device + worker.kind).second)
      text += concat(worker.place.device, ": ", worker.kind, "\n");
  return text;
}

}  // namespace

std::string plan_table(const PlanFile& plan) {
  const PlanPrediction& p = *plan.predicted;
  const int width = columns_of_terminal(STDOUT_FILENO);
  std::ostringstream out;
  const std::size_t workers = plan.workers.size() / static_cast<std::size_t>(plan.replicas);
  const std::size_t stages = plan.choice.layers_per_stage.size();
  if (plan.replicas > 1)
    out << plan.replicas << " replicas (" << to_string(placement_of_replicas(plan.choice, plan.replicas)) << ") of ";
  out << workers << (workers == 1 ? " worker, " : " workers, ") << stages << (stages == 1 ? " stage, " : " stages, ")
      << schedule_text(plan.choice) << ", " << plan.micro_batches << " micro-batches, recompute " << plan.recompute_text
      << "\n"
      << stages_table(plan, width) << "\n"
      << workers_table(plan, width) << "\nstep " << fixed_text(p.step_us * 1e-3, 2) << " ms, bubble "
      << fixed_text(p.bubble_steady * 100, 1) << " % (one step alone: " << fixed_text(p.alone_us * 1e-3, 2) << " ms, "
      << fixed_text(p.bubble * 100, 1) << " %)\n";
  out << kinds_text(plan);
  if (!plan.idle.empty())
    out << idle_text(plan) << "\nidle: " << (plan.idle.size() == 1 ? "worker " : "workers ") << ranges_text(plan.idle)
        << " of those given\n";
  return out.str();
}

}  // namespace lockstep
