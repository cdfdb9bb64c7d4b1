// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/simulation_report.hpp"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <memory>

#include "runtime/base/error.hpp"
#include "runtime/base/output_file.hpp"
#include "runtime/base/text_table.hpp"
#include "runtime/observe/page.hpp"
#include "runtime/observe/trace.hpp"
#include "runtime/schedule/auto.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/lower.hpp"
#include "runtime/schedule/schedule_error.hpp"
#include "runtime/schedule/schedule_text.hpp"
#include "runtime/schedule/simulation.hpp"
#include "runtime/schedule/validate.hpp"

namespace lockstep {

namespace {

/// stages x micro-batches: 1024 workers with four stages each and 4096 micro-batches; half a minute and 5 GiB.
constexpr long kMostCells = 1L << 24;
constexpr long kMostDrawnCells = 1L << 20;
const std::string kAuto = "auto";

/// The path behind file:, or a path that ends in .csv; empty for a generator's name.
std::string path_of(const std::string& schedule) {
  if (schedule.starts_with("file:")) return schedule.substr(5);
  const bool csv = schedule.size() > 4 && schedule.compare(schedule.size() - 4, 4, ".csv") == 0;
  return csv ? schedule : "";
}

void check_equal(const char* flag, int given, int found, const std::string& path) {
  if (given == 0 || given == found) return;
  throw UserError(concat(flag, ": got ", given, ", but ", path, " has ", found, "; leave the flag out with a file"));
}

Schedule from_file(const SimulateOptions& options, const std::string& path) {
  Schedule schedule;
  try {
    schedule = read_csv(path);
  } catch (const UserError& error) {
    throw UserError(concat("--schedule: ", error.what()));
  }
  check_equal("--stages", options.stages, schedule.stages, path);
  check_equal("--micro-batches", options.micro_batches, schedule.micro_batches, path);
  if (options.virtual_stages != 1) {
    check_equal("--virtual-stages", options.virtual_stages, schedule.stages / schedule.workers(), path);
  }
  require_valid(schedule, Order::any);
  return schedule;
}

void check_at_least_1(const char* flag, int value) {
  if (value == 0) throw UserError(concat(flag, ": missing or 0, expected a number of at least 1"));
  if (value < 1) throw UserError(concat(flag, ": got ", value, ", expected a number of at least 1"));
}

ScheduleShape shape_of(const SimulateOptions& options) {
  if (options.schedule != kAuto && find_generator(options.schedule) == nullptr)
    throw UserError(concat("--schedule: ", no_such_schedule(options.schedule, {kAuto, "file:PATH"})));
  check_at_least_1("--virtual-stages", options.virtual_stages);
  check_at_least_1("--stages", options.stages);
  check_at_least_1("--micro-batches", options.micro_batches);
  if (options.stages % options.virtual_stages != 0) {
    throw UserError(concat("--stages: got ", options.stages, ", expected a multiple of --virtual-stages (",
                           options.virtual_stages, "): stages counts all of them, workers = stages / virtual stages"));
  }
  if (static_cast<long>(options.stages) * options.micro_batches > kMostCells) {
    throw UserError(concat("--micro-batches: ", options.stages, " stages x ", options.micro_batches,
                           " micro-batches is too large to simulate, expected a product of at most ", kMostCells));
  }
  return {options.stages / options.virtual_stages, options.virtual_stages, options.micro_batches};
}

Schedule generated(const SimulateOptions& options, const ScheduleShape& shape) {
  try {
    return make_schedule(options.schedule, shape);
  } catch (const ScheduleError& error) {
    const bool takes_it = find_generator(options.schedule)->virtual_stages.allows(shape.virtual_stages);
    throw UserError(concat(takes_it ? "--micro-batches: " : "--virtual-stages: ", error.what()));
  }
}

/// One number per stage.
std::vector<double> per_stage(const char* flag, std::vector<double> values, int stages) {
  if (values.size() == 1) values.resize(static_cast<std::size_t>(stages), values.front());
  if (values.size() != static_cast<std::size_t>(stages)) {
    throw UserError(
        concat(flag, ": got ", values.size(), " numbers, expected 1, or one for each of the ", stages, " stages"));
  }
  for (const double value : values) {
    if (!(value > 0) || !std::isfinite(value)) {
      throw UserError(concat(flag, ": got ", value, ", expected a number of milliseconds above 0"));
    }
  }
  return values;
}

Costs costs_of(const SimulateOptions& options, int stages, int workers) {
  constexpr double kUsPerMs = 1000;
  const std::vector<double> forward =
      per_stage("--forward-ms", options.forward_ms.empty() ? std::vector<double>{1} : options.forward_ms, stages);
  std::vector<double> input_grad = forward, weight_grad = forward;
  if (!options.backward_ms.empty()) {
    if (!options.input_grad_ms.empty() || !options.weight_grad_ms.empty()) {
      throw UserError(
          "--backward-ms: give either this, which is I and W together, or --input-grad-ms and --weight-grad-ms");
    }
    input_grad = per_stage("--backward-ms", options.backward_ms, stages);
    for (double& ms : input_grad) ms /= 2;
    weight_grad = input_grad;
  }
  if (!options.input_grad_ms.empty()) input_grad = per_stage("--input-grad-ms", options.input_grad_ms, stages);
  if (!options.weight_grad_ms.empty()) weight_grad = per_stage("--weight-grad-ms", options.weight_grad_ms, stages);
  if (!(options.update_ms >= 0) || !std::isfinite(options.update_ms)) {
    throw UserError(
        concat("--update-ms: got ", options.update_ms, ", expected a number of milliseconds of at least 0"));
  }
  Costs costs = equal_costs(stages, 0, 0, 0);
  for (std::size_t s = 0; s < costs.stages.size(); ++s) {
    costs.stages[s].forward_us = forward[s] * kUsPerMs;
    costs.stages[s].input_grad_us = input_grad[s] * kUsPerMs;
    costs.stages[s].weight_grad_us = weight_grad[s] * kUsPerMs;
  }
  costs.update_us.assign(static_cast<std::size_t>(workers), options.update_ms * kUsPerMs);
  return costs;
}

std::string in_flight(const Simulation& simulation) {
  constexpr std::size_t kShown = 32;
  const std::vector<int>& all = simulation.peak_micro_batches;
  const std::vector<int> shown(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(all.size(), kShown)));
  return join(shown, " ") + (shown.size() < all.size() ? " ..." : "");
}

SimulateSubject subject_of(const SimulateOptions& options) {
  SimulateSubject subject;
  const auto lowered = [&] {
    subject.program = lower(subject.schedule, chain_topology(subject.schedule.stages), {Mode::train, options.clip});
  };
  if (const std::string path = path_of(options.schedule); !path.empty()) {
    subject.schedule = from_file(options, path);
    subject.costs = costs_of(options, subject.schedule.stages, subject.schedule.workers());
    subject.note = warning_of_order(subject.schedule);
    if (!subject.note.empty()) subject.note = "warning: " + subject.note;
    lowered();
    require_valid(subject.program, Order::any);  // generated ones are proved by the tests
    return subject;
  }
  const ScheduleShape shape = shape_of(options);
  subject.costs = costs_of(options, options.stages, shape.workers);
  if (options.schedule != kAuto) {
    subject.schedule = generated(options, shape);
  } else {
    BestOptions limits;
    limits.clip = options.clip;
    BestSchedule best = best_schedule(chain_topology(options.stages), subject.costs, shape, limits);
    subject.schedule = std::move(best.schedule);
    subject.note = "auto: " + best.reason;
  }
  lowered();
  return subject;
}

void print(const Schedule& schedule, const Simulation& simulation, const SimulateOptions& options, std::ostream& out) {
  DrawOptions drawing;
  drawing.width = options.width;
  out << schedule.name << ": " << schedule.workers() << " workers, " << schedule.stages << " stages, "
      << schedule.micro_batches << " micro-batches\n\n";
  if (simulation.timeline.spans.empty()) {
    out << "(no grid: more than " << kMostDrawnCells << " stages x micro-batches)\n\n";
  } else {
    out << draw(simulation.timeline, drawing) << '\n';
  }
  const auto restore = out.flags();
  const auto precision = out.precision();
  out << std::fixed << std::setprecision(3) << "step            " << simulation.step_us / 1000
      << " ms  (of one step alone)\n"
      << "period          " << simulation.period_us / 1000 << " ms  (per step when steps follow one another)\n"
      << std::setprecision(2) << "bubble          " << 100 * simulation.bubble << " %  (idle share of one step alone)\n"
      << "bubble_steady   " << 100 * simulation.bubble_steady << " %  (idle share when steps follow one another)\n";
  out.flags(restore);
  out.precision(precision);
  out << "in flight       " << in_flight(simulation) << "  (most micro-batches alive, by worker)\n"
      << "messages        " << simulation.messages << " per step (values and gradients)\n";
}

}  // namespace

int simulate_command(const SimulateOptions& options, std::ostream& out, const SubjectOfPlan& of_plan) {
  if (options.width < 40) throw UserError(concat("--width: got ", options.width, ", expected at least 40 columns"));
  const auto [schedule, program, costs, note, describe] =
      options.plan.empty() ? subject_of(options) : of_plan(options.plan);
  for (const auto& [flag, file] :
       {std::pair("--csv", options.csv), {"--html", options.html}, {"--trace", options.trace}})
    if (!file.empty()) check_writable(flag, file);
  const bool drawn = static_cast<long>(schedule.stages) * schedule.micro_batches <= kMostDrawnCells;
  print(schedule, simulate(program, costs, drawn ? 1 : 0), options, out);
  if (!note.empty()) out << note << '\n';
  if (!options.csv.empty()) {
    write_csv(schedule, options.csv);
    out << "schedule        written to " << options.csv << '\n';
  }
  if (options.html.empty() && options.trace.empty()) return 0;
  RunTimeline timeline = simulated_timeline(program, costs, 1);
  if (describe) describe(timeline);
  if (!options.html.empty()) {
    write_whole_file(options.html, html_page(timeline, {}));
    out << "page            written to " << options.html << '\n';
  }
  if (!options.trace.empty()) {
    write_whole_file(options.trace, chrome_trace(timeline));
    out << "trace           written to " << options.trace << '\n';
  }
  return 0;
}

}  // namespace lockstep
