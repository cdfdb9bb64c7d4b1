// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/schedule_choice.hpp"

#include <numeric>

#include "runtime/schedule/auto.hpp"
#include "runtime/schedule/schedule_text.hpp"

namespace lockstep {
namespace {

ScheduleChoice from_file(const Config& config, int micro_batches, const Section& section) {
  const PipelineConfig& pipeline = config.pipeline;
  const std::string file = pipeline.schedule_file();
  ScheduleChoice choice;
  try {
    choice.schedule = read_csv(file);
  } catch (const UserError& error) {
    throw section.error("schedule", error.what());
  }
  const Schedule& schedule = choice.schedule;
  if (schedule.stages != pipeline.stages)
    throw section.error("schedule", concat(file, " has ", schedule.stages, " stages on ", schedule.workers(),
                                           " workers, but the model is cut into ", pipeline.stages,
                                           "; set pipeline.stages=", schedule.stages));
  if (schedule.micro_batches != micro_batches && config.replicas.count > 1)
    throw section.error("schedule", concat(file, " has ", schedule.micro_batches, " micro-batches, but a replica runs ",
                                           micro_batches, " of the ", config.train.micro_batches,
                                           " of train.micro_batches: the file is of one replica"));
  if (schedule.micro_batches != micro_batches)
    throw section.error("schedule", concat(file, " has ", schedule.micro_batches,
                                           " micro-batches, but "
                                           "train.micro_batches is ",
                                           micro_batches, "; set train.micro_batches=", schedule.micro_batches));
  require_valid(schedule, Order::any);
  if (const WorkerId first = row_of_stage(schedule).front(); first.value() != 0)
    throw section.error("schedule", concat(file, " has stage 0 in line ", first.value() + 1,
                                           "; the first worker reads the data: put that line first"));
  choice.order = Order::any;
  choice.warning = warning_of_order(schedule);
  if (!choice.warning.empty() && config.gradient_groups() > 1)
    throw section.error("schedule", concat(choice.warning, "; it needs train.gradient_groups 1, and no replicas; got ",
                                           config.gradient_groups(), " groups"));
  return choice;
}

double number_of_stage(const Section& section, const std::string& key, const std::vector<double>& numbers, int stage,
                       const Partition& partition) {
  const auto stages = static_cast<std::size_t>(partition.stages());
  const auto [first, end] = partition.layers_of(StageId(stage));
  const auto layers = static_cast<std::size_t>(partition.first_layer.back());
  if (numbers.size() == 1) return numbers[0];
  if (numbers.size() == stages) return numbers[static_cast<std::size_t>(stage)];
  if (numbers.size() == layers) return std::accumulate(numbers.begin() + first, numbers.begin() + end, 0.0);
  throw section.error(key, concat("got ", numbers.size(), " numbers, expected 1, ", stages, " (one per stage) or ",
                                  layers, " (one per layer)"));
}

}  // namespace

void check_schedule_name(const Config& config) {
  const std::string& name = config.pipeline.schedule;
  if (name == "auto" || !config.pipeline.schedule_file().empty() || find_generator(name) != nullptr) return;
  throw config.root.section("pipeline").error("schedule", no_such_schedule(name, {"auto"}));
}

ScheduleChoice choose_schedule(const Config& config, const Partition& partition, int micro_batches,
                               const Costs* measured) {
  const PipelineConfig& pipeline = config.pipeline;
  const Section section = config.root.section("pipeline");
  if (!pipeline.schedule_file().empty()) return from_file(config, micro_batches, section);
  check_schedule_name(config);
  const bool automatic = pipeline.schedule == "auto";
  if (partition.stages() % pipeline.virtual_stages != 0)
    throw section.error("stages",
                        concat("got ", partition.stages(), ", expected a multiple of virtual_stages, which is ",
                               pipeline.virtual_stages));
  try {
    const ScheduleShape shape{partition.stages() / pipeline.virtual_stages, pipeline.virtual_stages, micro_batches};
    ScheduleChoice choice;
    if (!automatic) {
      choice.schedule = make_schedule(pipeline.schedule, shape);
      return choice;
    }
    BestOptions options;
    options.clip = config.train.clip_grad_norm > 0;
    if (pipeline.in_flight_limit > 0) options.limit_bytes = static_cast<double>(pipeline.in_flight_limit);
    Costs costs = measured ? *measured : costs_of(config, partition);
    if (pipeline.recompute != Recompute::never)
      for (StageCost& stage : costs.stages) {
        stage.input_grad_us += stage.recompute_us;
        stage.activation_bytes = stage.recompute_activation_bytes;
      }
    BestSchedule best = best_schedule(partition.topology, costs, shape, options);
    choice.schedule = std::move(best.schedule);
    choice.reason = std::move(best.reason);
    return choice;
  } catch (const ScheduleError& error) {
    throw section.error("schedule", error.what());
  }
}

Costs costs_of(const Config& config, const Partition& partition) {
  const CostsConfig& from = config.pipeline.costs;
  const Section section = config.root.section("pipeline").section("costs");
  Costs costs;
  for (int stage = 0; stage < partition.stages(); ++stage) {
    const auto number = [&](const char* key, const std::vector<double>& numbers, double none) {
      return numbers.empty() ? none : number_of_stage(section, key, numbers, stage, partition);
    };
    StageCost cost;
    cost.forward_us = number("forward_ms", from.forward_ms, 0.0) * 1e3;
    cost.input_grad_us = number("input_grad_ms", from.input_grad_ms, cost.forward_us * 1e-3) * 1e3;
    cost.weight_grad_us = number("weight_grad_ms", from.weight_grad_ms, cost.forward_us * 1e-3) * 1e3;
    cost.recompute_us = cost.forward_us;
    cost.activation_bytes = cost.recompute_activation_bytes = number("activation_bytes", from.activation_bytes, 1.0);
    cost.weight_grad_bytes = number("weight_grad_bytes", from.weight_grad_bytes, 0.0);
    costs.stages.push_back(cost);
  }
  costs.flow_bytes.assign(partition.topology.flows.size(), from.message_bytes);
  LinkCost link{from.latency_us};
  if (from.gigabytes_per_s > 0) link.bytes_per_us = from.gigabytes_per_s * 1e3;
  costs.links = {link, link, link};
  return costs;
}

}  // namespace lockstep
