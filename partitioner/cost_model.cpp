// SPDX-License-Identifier: Apache-2.0
#include "partitioner/cost_model.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "partitioner/stage_sum.hpp"
#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

std::size_t at(int index) {
  return static_cast<std::size_t>(index);
}

void check_size(const char* what, std::size_t got, int expected) {
  if (got != at(expected))
    throw UserError(concat("plan: got ", got, " ", what, ", the model has ", expected, " layers"));
}

void check_number(const std::string& where, const char* what, double value) {
  if (!(value >= 0) || std::isinf(value))
    throw UserError(concat("plan: ", what, " of ", where, " is ", value, ", expected a number >= 0"));
}

void check_layer(const std::string& where, const LayerCost& cost) {
  for (const LayerCostField& field : layer_cost_fields()) check_number(where, field.key, cost.*field.member);
}

}  // namespace

CostModel::CostModel(const PlanProblem& problem) : problem_(problem) {
  check_problem();
  find_kinds();
  const LayerGraph& graph = problem.graph;
  reads_.resize(at(layers()));
  outputs_.resize(at(layers()));
  held_.resize(at(layers()));
  gradient_bytes_.assign(at(layers()), 0.0);
  for (int id = 0; id < static_cast<int>(graph.values.size()); ++id) {
    const LayerValue& value = graph.values[at(id)];
    if (value.producer >= 0) outputs_[at(value.producer)].push_back(id);
    for (const int reader : value.readers) {
      std::vector<Read>& reads = reads_[at(reader)];
      if (!reads.empty() && reads.back().value == id) {
        ++reads.back().uses;
      } else {
        reads.push_back({id, 1});
      }
    }
  }
  for (int id = 0; id < static_cast<int>(graph.parameters.size()); ++id) {
    const LayerParameter& parameter = graph.parameters[at(id)];
    for (const int layer : parameter.holders) {
      if (parameter.trainable)
        gradient_bytes_[at(layer)] += static_cast<double>(parameter.gradient_elements()) * problem.parameter_bytes;
      std::vector<Held>& held = held_[at(layer)];
      if (!held.empty() && held.back().parameter == id) {
        ++held.back().count;
      } else {
        held.push_back({id, 1, layer == parameter.holders.front()});
      }
    }
  }
}

void CostModel::check_problem() const {
  const LayerGraph& graph = problem_.graph;
  const int layers = graph.layers();
  if (layers < 1) throw UserError("plan: the model has no layers");
  if (problem_.workers.empty()) throw UserError("plan: there are no workers");
  if (problem_.micro_batches < 1)
    throw UserError(concat("plan: got ", problem_.micro_batches, " micro-batches, expected at least 1"));
  check_size("flags of trainable layers", graph.trainable.size(), layers);
  check_size("flags of layers with a backward", graph.has_backward.size(), layers);
  if (problem_.value_bytes.size() != graph.values.size())
    throw UserError(
        concat("plan: got the bytes of ", problem_.value_bytes.size(), " values, the model has ", graph.values.size()));
  for (const auto& [kind, costs] : problem_.layers) {
    check_size("costs of layers", costs.size(), layers);
    for (int layer = 0; layer < layers; ++layer)
      check_layer(concat("layer '", graph.names[at(layer)], "'"), costs[at(layer)]);
  }
  for (std::size_t id = 0; id < problem_.value_bytes.size(); ++id)
    check_number(concat("value ", id), "the size", problem_.value_bytes[id]);
  check_number("the model", "parameter_bytes", problem_.parameter_bytes);
  const std::size_t counted = problem_.optimizer_bytes.size();
  if (counted != 0 && counted != graph.parameters.size())
    throw UserError(
        concat("plan: got the optimizer's bytes of ", counted, " parameters, the model has ", graph.parameters.size()));
  for (const double bytes : problem_.optimizer_bytes) check_number("the model", "optimizer_bytes", bytes);
  check_number("the model", "data_bytes", problem_.data_bytes);
  for (std::size_t i = 0; i < problem_.workers.size(); ++i) {
    const PlannedWorker& worker = problem_.workers[i];
    if (!(worker.speed > 0) || std::isinf(worker.speed))
      throw UserError(concat("plan: the speed of worker ", i, " is ", worker.speed, ", expected a number > 0"));
    if (!problem_.layers.contains(worker.kind))
      throw UserError(concat("plan: worker ", i, " is on ", worker.kind, ", of which no costs are known"));
    if (!(worker.limit_bytes > 0))
      throw UserError(concat("plan: the limit of worker ", i, " is ", worker.limit_bytes, " bytes, expected > 0"));
  }
}

void CostModel::find_kinds() {
  std::vector<std::string> names;
  for (const PlannedWorker& worker : problem_.workers) {
    const auto known = std::find(names.begin(), names.end(), worker.kind);
    kind_of_worker_.push_back(static_cast<int>(known - names.begin()));
    if (known == names.end()) {
      names.push_back(worker.kind);
      kinds_.push_back(&problem_.layers.at(worker.kind));
      fastest_.push_back(0);
    }
    double& fastest = fastest_[at(kind_of_worker_.back())];
    fastest = std::max(fastest, worker.speed);
  }
  std::vector<double> whole_us;
  for (const std::vector<LayerCost>* kind : kinds_) {
    double us = 0;
    for (const LayerCost& cost : *kind) us += cost.forward_us + cost.input_grad_us + cost.weight_grad_us;
    whole_us.push_back(us);
  }
  compared_workers_ = problem_.workers;
  for (std::size_t i = 0; i < compared_workers_.size(); ++i)
    if (const double us = whole_us[at(kind_of_worker_[i])]; us > 0) compared_workers_[i].speed *= whole_us[0] / us;
}

void CostModel::check(const PlanChoice& choice) const {
  const std::vector<int>& counts = choice.layers_per_stage;
  const long total = std::accumulate(counts.begin(), counts.end(), 0L);
  const bool positive = std::all_of(counts.begin(), counts.end(), [](int count) { return count >= 1; });
  if (!positive || total != layers())
    throw UserError(concat("plan: the partition [", join(counts), "] has ", total, " layers in ", counts.size(),
                           " stages; the model has ", layers(), " layers, and every stage needs at least one"));
  const int rows = rows_of(problem_, choice);
  const int replicas = problem_.replicas.count, of_one = rows / replicas;
  if (choice.virtual_stages < 1 || rows % replicas != 0 ||
      static_cast<long>(counts.size()) != 1L * of_one * choice.virtual_stages)
    throw UserError(concat("plan: got ", counts.size(), " stages for ", rows, " workers with ", choice.virtual_stages,
                           " stages each", replicas > 1 ? concat(" in ", replicas, " replicas") : std::string(),
                           ", expected ", of_one * choice.virtual_stages));
  const std::set<int> named(choice.placement.begin(), choice.placement.end());
  const bool known = named.empty() || (*named.begin() >= 0 && *named.rbegin() < workers());
  if (!known || named.size() != choice.placement.size())
    throw UserError(concat("plan: got the placement [", join(choice.placement), "], expected each of 0 to ",
                           workers() - 1, " at most once"));
}

// ---- stages ----

bool CostModel::has_backward(int first, int last) const {
  for (int layer = first; layer < last; ++layer)
    if (layer_has_backward(layer)) return true;
  return false;
}

bool CostModel::has_weight_grad(int first, int last) const {
  for (int layer = first; layer < last; ++layer)
    if (problem_.graph.trainable[at(layer)]) return true;
  return false;
}

double CostModel::resident_bytes(int kind, int first, int last, bool whole) const {
  double bytes = first == 0 ? problem_.data_bytes : 0.0;
  for (int layer = first; layer < last; ++layer) {
    bytes += cost(kind, layer).step_bytes;
    for (const Held& held : held_[at(layer)]) {
      const LayerParameter& parameter = problem_.graph.parameters[at(held.parameter)];
      const bool counts = held.first || (whole && *std::lower_bound(parameter.holders.begin(), parameter.holders.end(),
                                                                    first) == layer);
      if (counts) bytes += parameter_resident_bytes(held.parameter, {});
    }
  }
  return bytes;
}

double CostModel::update_us(int kind, int first, int last) const {
  double us = 0;
  for (int layer = first; layer < last; ++layer) {
    double mine = 0, all = 0;
    for (const Held& held : held_[at(layer)]) {
      const LayerParameter& parameter = problem_.graph.parameters[at(held.parameter)];
      if (!parameter.trainable) continue;
      all += static_cast<double>(parameter.elements);
      if (held.first) mine += static_cast<double>(parameter.elements);
    }
    us += cost(kind, layer).update_us * (all > 0 ? mine / all : 1.0);
  }
  return us;
}

double CostModel::values_in_bytes(int first, int last) const {
  double bytes = 0;
  for (int layer = first; layer < last; ++layer)
    for (const Read& read : reads(layer)) {
      const LayerValue& from = value(read.value);
      const bool outside = from.producer < first && first > 0;
      if (outside && *std::lower_bound(from.readers.begin(), from.readers.end(), first) == layer)
        bytes += value_bytes(read.value);
    }
  return bytes;
}

double CostModel::gradients_in_bytes(int first, int last) const {
  double bytes = 0;
  for (int layer = first; layer < last; ++layer)
    for (const int id : outputs_[at(layer)]) {
      if (!value(id).has_gradient) continue;
      const auto& readers = value(id).readers;
      bytes +=
          static_cast<double>(readers.end() - std::lower_bound(readers.begin(), readers.end(), last)) * value_bytes(id);
    }
  return bytes;
}

StageCost CostModel::stage(int kind, int first, int last, const Surroundings& around) const {
  StageCost cost = add_up(*this, kind, first, last, around, false);
  const StageCost again = add_up(*this, kind, first, last, around, true);
  cost.recompute_us = again.recompute_us;
  cost.recompute_activation_bytes = again.activation_bytes;
  cost.recompute_workspace = again.workspace;
  cost.recompute_first_workspace = again.first_workspace;
  return cost;
}

}  // namespace lockstep
