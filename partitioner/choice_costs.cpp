// SPDX-License-Identifier: Apache-2.0
//
// CostModel: what a choice costs, by row, stage and message, and the program that it runs.
#include <algorithm>
#include <map>
#include <set>

#include "partitioner/cost_model.hpp"
#include "partitioner/replica_work.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/lower.hpp"

namespace lockstep {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

/// Where the stages of a choice are.
class Placed : public Surroundings {
 public:
  Placed(const std::vector<int>& first_layer, const Costs& costs, const std::vector<WorkerId>& rows, StageId here)
      : first_layer_(first_layer), costs_(costs), rows_(rows), here_(here) {}
  bool made_nearby(int layer) const override { return nearby(layer); }
  bool read_nearby(int layer) const override { return nearby(layer); }

 private:
  bool nearby(int layer) const {
    const StageId stage = stage_of_layer(first_layer_, layer);
    return costs_.by_pointer(rows_[at(stage.value())], rows_[at(here_.value())]);
  }
  const std::vector<int>& first_layer_;
  const Costs& costs_;
  const std::vector<WorkerId>& rows_;
  StageId here_;
};

}  // namespace

std::vector<WorkerPlace> CostModel::places_of(const PlanChoice& choice, const Schedule& schedule) const {
  std::vector<WorkerPlace> places;
  for (int row = 0; row < schedule.workers() * problem_.replicas.count; ++row)
    places.push_back(problem_.workers[choice.worker_of(at(row))].place);
  return places;
}

Costs CostModel::costs(const PlanChoice& choice, const Schedule& schedule) const {
  const std::vector<int> first = first_layers(choice.layers_per_stage);
  const std::vector<WorkerId> rows = row_of_stage(schedule);  // of the first replica
  Costs costs;
  costs.links = problem_.links;
  costs.element_bytes = problem_.parameter_bytes;
  costs.places = places_of(choice, schedule);
  for (int row = 0; row < static_cast<int>(costs.places.size()); ++row) {
    const std::size_t worker = choice.worker_of(at(row));
    const int of_replica = row % schedule.workers();
    costs.update_us.push_back(update_us_of_row(kind_of(worker), of_replica, first, rows) /
                              problem_.workers[worker].speed);
    costs.resident_bytes.push_back(resident_bytes_of_row(kind_of(worker), of_replica, first, rows, {}));
  }
  if (problem_.replicas.groups > 1) share_work(choice, schedule, first, rows, costs);
  for (int replica = 0; replica < problem_.replicas.count; ++replica) {
    std::vector<WorkerId> here;
    for (const WorkerId row : rows) here.emplace_back(row.value() + replica * schedule.workers());
    for (std::size_t s = 0; s < here.size(); ++s) {
      const std::size_t worker = choice.worker_of(at(here[s].value()));
      StageCost cost =
          stage(kind_of(worker), first[s], first[s + 1], Placed(first, costs, here, StageId(static_cast<int>(s))));
      const double speed = problem_.workers[worker].speed;
      for (double* us : {&cost.forward_us, &cost.input_grad_us, &cost.weight_grad_us, &cost.recompute_us}) *us /= speed;
      cost.gradient_bytes *= problem_.replicas.most_sums_of(replica);
      costs.stages.push_back(cost);
    }
  }
  add_messages(first, rows, costs);
  return costs;
}

/// Groups and replicas add up gradients, and replicas divide the work on what their memory has once.
void CostModel::share_work(const PlanChoice& choice, const Schedule& schedule, const std::vector<int>& first,
                           const std::vector<WorkerId>& rows, Costs& costs) const {
  const Replicas& replicas = problem_.replicas;
  Wiring wiring;
  wiring.rows = schedule.workers() * replicas.count;
  for (int replica = 0; replica < replicas.count; ++replica)
    for (const WorkerId row : rows) wiring.row_of_stage.emplace_back(row.value() + replica * schedule.workers());
  wiring.memory_of_row = memories_of_weights(costs.places, problem_.has_central_storage());
  const WorkShares shares = work_shares(topology(first), wiring);
  for (int row = 0; row < wiring.rows; ++row) {
    const int of_replica = row % schedule.workers();
    const std::size_t worker = choice.worker_of(at(row));
    costs.update_us[at(row)] *= share_of(shares.updated[at(row)], shares.elements[at(row)]);
    HeldShare held;
    for (int before = of_replica; before < row; before += schedule.workers())
      if (wiring.memory_of_row[at(before)] == wiring.memory_of_row[at(row)]) held = {0, 0};
    held.optimizer *= share_of(shares.stored_in_memory[at(row)], shares.stored[at(row)]);
    if (problem_.has_central_storage() && !costs.places[at(row)].is_on_host()) held.values += 1;  // its copies
    double& bytes = costs.resident_bytes[at(row)];
    bytes = resident_bytes_of_row(kind_of(worker), of_replica, first, rows, held);
    if (of_replica == rows.front().value()) {
      const TermRange mine = replicas.micro_batches_of(row / schedule.workers(), replicas.micro_batches);
      bytes -= (1 - static_cast<double>(mine.end - mine.begin) / replicas.micro_batches) * problem_.data_bytes;
    }
    const auto add_us = problem_.add_us_per_byte.find(problem_.workers[worker].kind);
    costs.reduce_us.push_back(add_us == problem_.add_us_per_byte.end()
                                  ? 0.0
                                  : shares.added[at(row)] * problem_.parameter_bytes * add_us->second /
                                        problem_.workers[worker].speed);
  }
}

void CostModel::add_messages(const std::vector<int>& first, const std::vector<WorkerId>& rows, Costs& costs) const {
  for (const FlowValues& flow : flows_of(problem_.graph, first)) {
    double values = 0, gradients = 0;
    for (const int id : flow.values) {
      values += value_bytes(id);
      if (!value(id).has_gradient) continue;
      for (const int reader : value(id).readers)
        if (stage_of_layer(first, reader) == flow.flow.to) gradients += value_bytes(id);
    }
    costs.flow_bytes.push_back(std::max(values, gradients));
  }
  for (const LayerParameter& parameter : problem_.graph.parameters) {
    if (parameter.holders.size() < 2 || !parameter.trainable) continue;
    std::map<WorkerId, int> holders;  // a message has a buffer for each
    for (const int layer : parameter.holders) ++holders[rows[at(stage_of_layer(first, layer).value())]];
    int most = 0;
    for (const auto& [row, count] : holders) most = std::max(most, count);
    costs.shared_bytes.push_back(most * static_cast<double>(parameter.elements) * problem_.parameter_bytes);
  }
  // The replicas' are alike, as those of a replicated() topology.
  for (std::vector<double>* bytes : {&costs.flow_bytes, &costs.shared_bytes}) {
    const std::vector<double> of_one = *bytes;
    for (int replica = 1; replica < problem_.replicas.count; ++replica)
      bytes->insert(bytes->end(), of_one.begin(), of_one.end());
  }
}

Topology CostModel::topology(const std::vector<int>& first) const {
  return replicated(topology_of(problem_.graph, first), problem_.replicas);
}

Program CostModel::program(const PlanChoice& choice, const Schedule& schedule) const {
  LowerOptions options;
  options.clip = problem_.clip;
  options.post_validation = problem_.post_validation;
  options.recompute = choice.recompute;
  const Replicas& replicas = problem_.replicas;
  const Topology all = topology(first_layers(choice.layers_per_stage));
  if (replicas.groups == 1) return lower(schedule, all, options);
  const Schedule of_all = replicas.count > 1 ? replicated(schedule, replicas, replicas.micro_batches) : schedule;
  return lower(of_all, all,
               wiring_of(of_all, all, memories_of_weights(places_of(choice, schedule), problem_.has_central_storage())),
               options);
}

// ---- rows ----

double CostModel::parameter_resident_bytes(int parameter, const HeldShare& held) const {
  const LayerParameter& known = problem_.graph.parameters[at(parameter)];
  const double copies = known.trainable && keeps_state_twice() ? 2.0 : 1.0;
  return copies *
         (held.values * value_bytes_of(problem_, parameter) + held.optimizer * optimizer_bytes_of(problem_, parameter));
}

double CostModel::resident_bytes_of_row(int kind, int row, const std::vector<int>& first,
                                        const std::vector<WorkerId>& rows, const HeldShare& held) const {
  double bytes = rows.front().value() == row ? problem_.data_bytes : 0.0;
  std::set<int> seen;
  for (std::size_t s = 0; s < rows.size(); ++s) {
    if (rows[s].value() != row) continue;
    for (int layer = first[s]; layer < first[s + 1]; ++layer) {
      bytes += cost(kind, layer).step_bytes;
      for (const Held& parameter : held_[at(layer)])
        if (seen.insert(parameter.parameter).second) bytes += parameter_resident_bytes(parameter.parameter, held);
    }
  }
  return bytes;
}

double CostModel::update_us_of_row(int kind, int row, const std::vector<int>& first,
                                   const std::vector<WorkerId>& rows) const {
  double us = 0;
  std::set<int> seen;
  for (std::size_t s = 0; s < rows.size(); ++s) {
    if (rows[s].value() != row) continue;
    for (int layer = first[s]; layer < first[s + 1]; ++layer) {
      double mine = 0, all = 0;
      for (const Held& held : held_[at(layer)]) {
        const LayerParameter& parameter = problem_.graph.parameters[at(held.parameter)];
        if (!parameter.trainable) continue;
        const auto elements = static_cast<double>(parameter.elements);
        all += elements;
        if (seen.insert(held.parameter).second) mine += elements;
      }
      us += cost(kind, layer).update_us * (all > 0 ? mine / all : 1.0);
    }
  }
  return us;
}

}  // namespace lockstep
