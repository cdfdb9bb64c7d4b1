// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <iomanip>

#include "runtime/config/size.hpp"
#include "tools/planning.hpp"

namespace lockstep {
namespace {

std::string fixed(double number, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << number;
  return out.str();
}

std::string bytes_text(double bytes) {
  return size_text(static_cast<std::int64_t>(std::ceil(bytes)));
}

std::string in_millions(std::int64_t count) {
  if (count < 100'000) return std::to_string(count);
  return fixed(static_cast<double>(count) * 1e-6, count < 10'000'000 ? 2 : 1) + " M";
}

std::string shortened(const std::string& name) {
  constexpr std::size_t most = 16;
  return name.size() <= most ? name : name.substr(0, most - 2) + "..";
}

void print_row(std::ostream& out, const std::vector<int>& widths, const std::vector<std::string>& cells) {
  for (std::size_t i = 0; i < widths.size(); ++i) out << std::setw(widths[i]) << cells[i];
  for (std::size_t i = widths.size(); i < cells.size(); ++i) out << "  " << cells[i];
  out << "\n";
}

}  // namespace

std::string plan_table(const PlanFile& plan) {
  const PlanPrediction& p = *plan.predicted;
  std::ostringstream out;
  out << plan.workers.size() << (plan.workers.size() == 1 ? " worker, " : " workers, ") << p.stages.size()
      << (p.stages.size() == 1 ? " stage, " : " stages, ") << schedule_text(plan.choice) << ", " << plan.micro_batches
      << " micro-batches, recompute " << plan.recompute_text << "\n";
  const std::vector<int> stage_widths = {5, 8, 8, 10, 10, 10, 12, 11};
  print_row(out, stage_widths,
            {"stage", "worker", "layers", "F ms", "I ms", "W ms", "parameters", "in flight", "first .. last"});
  std::size_t layer = 0;
  const auto worker_of = [&](int row) {
    return plan.choice.placement.empty() ? row : plan.choice.placement[static_cast<std::size_t>(row)];
  };
  for (std::size_t s = 0; s < p.stages.size(); ++s) {
    const PredictedStage& stage = p.stages[s];
    const StageCost& cost = p.costs.stages[s];
    std::string names = shortened(p.layers[layer].name);
    if (stage.layers > 1)
      names += " .. " + shortened(p.layers[layer + static_cast<std::size_t>(stage.layers) - 1].name);
    layer += static_cast<std::size_t>(stage.layers);
    print_row(
        out, stage_widths,
        {std::to_string(s), std::to_string(worker_of(stage.row)), std::to_string(stage.layers),
         fixed(cost.forward_us * 1e-3, 3), fixed(cost.input_grad_us * 1e-3, 3), fixed(cost.weight_grad_us * 1e-3, 3),
         in_millions(stage.parameters), std::to_string(stage.in_flight), names});
  }
  out << "\n";
  const std::vector<int> worker_widths = {6, 6, 6, 13, 10, 14, 14, 8};
  print_row(out, worker_widths, {"worker", "rank", "host", "compute ms", "wait ms", "peak bytes", "limit", "used"});
  for (std::size_t row = 0; row < p.compute_us.size(); ++row) {
    const int number = worker_of(static_cast<int>(row));
    const PlannedWorker& worker = plan.workers[static_cast<std::size_t>(number)];
    const bool limited = std::isfinite(worker.limit_bytes);
    print_row(out, worker_widths,
              {std::to_string(number), std::to_string(worker.place.rank), std::to_string(worker.place.host),
               fixed(p.compute_us[row] * 1e-3, 2), fixed(p.wait_us[row] * 1e-3, 2), bytes_text(p.peak_bytes[row]),
               limited ? bytes_text(worker.limit_bytes) : "none",
               limited ? fixed(100 * p.peak_bytes[row] / worker.limit_bytes, 0) + " %" : "-"});
  }
  out << "\nstep " << fixed(p.step_us * 1e-3, 2) << " ms, bubble " << fixed(p.bubble_steady * 100, 1)
      << " % (one step alone: " << fixed(p.alone_us * 1e-3, 2) << " ms, " << fixed(p.bubble * 100, 1) << " %)\n";
  return out.str();
}

}  // namespace lockstep
