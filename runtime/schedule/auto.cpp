// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/auto.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <sstream>

#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/schedule/list_schedule.hpp"
#include "runtime/schedule/lower.hpp"
#include "runtime/schedule/schedule_error.hpp"

namespace lockstep {

namespace {

using Placement = std::vector<WorkerId>;

struct NamedPlacement {
  std::string name;
  Placement row_of_stage;
};

std::vector<NamedPlacement> placements(const ScheduleShape& shape, const BestOptions& options) {
  if (!options.row_of_stage.empty()) return {{"as placed", options.row_of_stage}};
  std::vector<NamedPlacement> list;
  const auto add = [&](const char* name, StageId (*stage_of)(const ScheduleShape&, int, int)) {
    Placement rows(static_cast<std::size_t>(shape.workers) * static_cast<std::size_t>(shape.virtual_stages));
    for (int worker = 0; worker < shape.workers; ++worker) {
      for (int number = 0; number < shape.virtual_stages; ++number) {
        rows[index(stage_of(shape, worker, number))] = WorkerId(worker);
      }
    }
    list.push_back({name, rows});
  };
  add(shape.virtual_stages == 1 ? "one stage a worker" : "in a loop", loop_stage);
  if (shape.virtual_stages == 2) add("in a V", v_stage);
  return list;
}

std::vector<ListRule> rules(const ScheduleShape& shape) {
  std::vector<ListRule> list;
  const int rows = shape.workers * shape.virtual_stages;
  for (const bool gradients_first : {true, false}) {
    for (const double alive : {0.0, 1.0, 1.5, 2.0, 3.0, std::numeric_limits<double>::infinity()}) {
      list.push_back({gradients_first, alive, 0, 0});
      for (const double gap : {0.0, 0.5, 1.0}) {
        for (const int waiting : {1, rows, 2 * rows, shape.micro_batches * shape.virtual_stages}) {
          list.push_back({gradients_first, alive, gap, waiting});
        }
      }
    }
  }
  return list;
}

double most(const std::vector<double>& values) {
  return *std::max_element(values.begin(), values.end());
}

class Contest {
 public:
  Contest(const Topology& topology, const Costs& costs, const BestOptions& options)
      : topology_(topology), costs_(costs), options_(options) {}

  void enter(Schedule schedule, const std::string& name, bool fixed) {
    if (!options_.row_of_stage.empty() && row_of_stage(schedule) != options_.row_of_stage) return;
    ++tried_;
    LowerOptions lowering;
    lowering.clip = options_.clip;
    Simulation simulation = simulate(lower(schedule, topology_, lowering), costs_);
    const double bytes = most(simulation.peak_bytes);
    least_bytes_ = std::min(least_bytes_, bytes);
    if (bytes > options_.limit_bytes) return;
    ++fit_;
    if (fixed && (!best_fixed_ || simulation.period_us < best_fixed_->simulated.period_us)) {
      best_fixed_ = BestSchedule{{}, name, "", simulation};
    }
    if (best_ && !better(simulation, best_->simulated)) return;
    best_ = BestSchedule{std::move(schedule), name, "", std::move(simulation)};
  }

  BestSchedule winner() {
    if (!best_) {
      throw ScheduleError(concat("schedule auto: none of ", tried_, " schedules fits the limit of ",
                                 size_text(options_.limit_bytes),
                                 " in flight on a worker; the smallest limit that one ", "fits is ",
                                 size_text(least_bytes_), " (", static_cast<long long>(std::ceil(least_bytes_)),
                                 " bytes); more workers, or more and smaller micro-batches, need less"));
    }
    best_->reason = reason();
    best_->schedule.name = "auto";
    return std::move(*best_);
  }

 private:
  static bool better(const Simulation& a, const Simulation& b) {
    const int speed = compare_speed(a, b);
    return (speed != 0 ? speed : compare_rounded(most(a.peak_bytes), most(b.peak_bytes))) < 0;
  }

  std::string reason() const {
    std::ostringstream out;
    out << best_->chosen << ": " << time_text(best_->simulated.period_us) << " a step, bubble_steady "
        << percent_text(best_->simulated.bubble_steady);
    const double bytes = most(best_->simulated.peak_bytes);
    if (bytes > 0) out << ", at most " << size_text(bytes) << " in flight on a worker";
    out << "; the best of " << fit_ << " schedules by simulation";
    if (fit_ < tried_) out << " (" << tried_ - fit_ << " more do not fit " << size_text(options_.limit_bytes) << ")";
    if (!best_fixed_) {
      out << "; no named schedule fits";
    } else if (best_fixed_->chosen != best_->chosen) {
      const double share = 1 - best_->simulated.period_us / best_fixed_->simulated.period_us;
      out << "; " << percent_text(share) << " less than the best named one, " << best_fixed_->chosen << " ("
          << time_text(best_fixed_->simulated.period_us) << ")";
    }
    return out.str();
  }

  const Topology& topology_;
  const Costs& costs_;
  const BestOptions& options_;
  std::optional<BestSchedule> best_, best_fixed_;
  int tried_ = 0, fit_ = 0;
  double least_bytes_ = std::numeric_limits<double>::infinity();
};

}  // namespace

BestSchedule best_schedule(const Topology& topology, const Costs& costs, const ScheduleShape& shape,
                           const BestOptions& options) {
  if (shape.workers < 1 || shape.virtual_stages < 1 || shape.micro_batches < 1 ||
      shape.workers * shape.virtual_stages != topology.stages) {
    throw ScheduleError(concat("schedule auto: got ", shape.workers, " workers with ", shape.virtual_stages,
                               " stages each and ", shape.micro_batches, " micro-batches for a model cut into ",
                               topology.stages, " stages"));
  }
  if (static_cast<long>(topology.stages) * shape.micro_batches > kMostAutoCells) {
    throw ScheduleError(concat("schedule auto: ", topology.stages, " stages x ", shape.micro_batches,
                               " micro-batches is more than it looks through, which is a product of ", kMostAutoCells,
                               "; take a named schedule: `lockstep list schedules`"));
  }
  Contest contest(topology, costs, options);
  for (const ScheduleGenerator& generator : schedule_generators()) {
    if (!generator.virtual_stages.allows(shape.virtual_stages)) continue;
    Schedule schedule;
    try {
      schedule = generator.make(shape);
    } catch (const ScheduleError&) {
      continue;  // its definition forbids the shape
    }
    contest.enter(std::move(schedule), generator.name, true);
  }
  for (const NamedPlacement& placement : placements(shape, options)) {
    for (const ListRule& rule : rules(shape)) {
      contest.enter(list_schedule(topology, costs, placement.row_of_stage, shape.micro_batches, rule),
                    concat("list schedule (", placement.name, "; ", rule.text(), ")"), false);
    }
  }
  return contest.winner();
}

int compare_rounded(double a, double b) {
  constexpr double kSame = 1e-9;
  return std::abs(a - b) <= kSame * std::abs(b) ? 0 : a < b ? -1 : 1;
}

int compare_speed(const Simulation& a, const Simulation& b) {
  const int period = compare_rounded(a.period_us, b.period_us);
  return period != 0 ? period : compare_rounded(a.step_us, b.step_us);
}

}  // namespace lockstep
