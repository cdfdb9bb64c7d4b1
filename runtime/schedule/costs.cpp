// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/costs.hpp"

#include "runtime/base/error.hpp"

namespace lockstep {

Costs equal_costs(int stages, double forward_us, double input_grad_us, double weight_grad_us) {
  StageCost stage;
  stage.forward_us = forward_us;
  stage.input_grad_us = input_grad_us;
  stage.weight_grad_us = weight_grad_us;
  Costs costs;
  costs.stages.assign(static_cast<std::size_t>(stages), stage);
  return costs;
}

namespace {

/// One after the other.
LinkCost in_turn(const LinkCost& a, const LinkCost& b) {
  return {a.latency_us + b.latency_us, 1 / (1 / a.bytes_per_us + 1 / b.bytes_per_us),
          a.busy_us_per_byte + b.busy_us_per_byte};
}

}  // namespace

LinkCost Links::between(const WorkerPlace& from, const WorkerPlace& to) const {
  if (from.shares_memory_with(to)) return same_rank;
  if (from.rank == to.rank)
    return in_turn(same_rank, from.is_on_host() ? to_device : to.is_on_host() ? to_host : between_devices);
  LinkCost link = from.host == to.host ? same_host : other_host;
  if (!from.is_on_host()) link = in_turn(to_host, link);
  if (!to.is_on_host()) link = in_turn(link, to_device);
  if (!from.is_on_host() && !to.is_on_host()) link.busy_us_per_byte = 0;  // the host has nothing else to do
  return link;
}

LinkCost Costs::link(WorkerId from, WorkerId to) const {
  return places.empty() ? links.same_host : links.between(places[index(from)], places[index(to)]);
}

bool Costs::by_pointer(WorkerId a, WorkerId b) const {
  return a == b || (!places.empty() && places[index(a)].shares_memory_with(places[index(b)]));
}

namespace {

/// "cost of stages: got 3 numbers, expected 4".
template <typename List>
void check_size(const char* what, const List& list, std::size_t expected, bool may_be_empty) {
  if (list.size() == expected || (may_be_empty && list.empty())) return;
  throw UserError(concat("simulate: got ", list.size(), " costs of ", what, ", expected ", expected));
}

void check_cost(const char* what, double value) {
  if (!(value >= 0)) throw UserError(concat("simulate: ", what, " is ", value, ", expected a number >= 0"));
}

}  // namespace

void check_costs(const Costs& costs, const Program& program) {
  check_size("stages", costs.stages, static_cast<std::size_t>(program.topology.stages), false);
  check_size("flows", costs.flow_bytes, program.topology.flows.size(), true);
  check_size("shared parameters", costs.shared_bytes, program.topology.shared.size(), true);
  check_size("reductions", costs.reduce_us, program.rows.size(), true);
  check_size("updates", costs.update_us, program.rows.size(), true);
  check_size("standing bytes", costs.resident_bytes, program.rows.size(), true);
  check_size("places", costs.places, program.rows.size(), true);
  for (const StageCost& stage : costs.stages) {
    check_cost("forward_us", stage.forward_us);
    check_cost("input_grad_us", stage.input_grad_us);
    check_cost("weight_grad_us", stage.weight_grad_us);
    check_cost("activation_bytes", stage.activation_bytes);
    check_cost("weight_grad_bytes", stage.weight_grad_bytes);
    check_cost("recompute_us", stage.recompute_us);
    check_cost("recompute_activation_bytes", stage.recompute_activation_bytes);
    check_cost("gradient_bytes", stage.gradient_bytes);
    for (const Workspace& workspace :
         {stage.workspace, stage.first_workspace, stage.recompute_workspace, stage.recompute_first_workspace})
      for (const double bytes : {workspace.forward, workspace.backward, workspace.input_grad, workspace.weight_grad})
        check_cost("workspace", bytes);
  }
  for (const double bytes : costs.flow_bytes) check_cost("flow_bytes", bytes);
  for (const double bytes : costs.shared_bytes) check_cost("shared_bytes", bytes);
  for (const double us : costs.update_us) check_cost("update_us", us);
  for (const double us : costs.reduce_us) check_cost("reduce_us", us);
  for (const double bytes : costs.resident_bytes) check_cost("resident_bytes", bytes);
  const Links& links = costs.links;
  for (const LinkCost& link :
       {links.same_rank, links.same_host, links.other_host, links.to_device, links.to_host, links.between_devices}) {
    check_cost("latency_us", link.latency_us);
    if (!(link.bytes_per_us > 0)) {
      throw UserError(concat("simulate: bytes_per_us is ", link.bytes_per_us, ", expected a number > 0"));
    }
  }
}

}  // namespace lockstep
