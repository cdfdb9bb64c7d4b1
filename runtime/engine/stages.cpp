// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/stages.hpp"

#include <algorithm>
#include <utility>

#include "runtime/base/check.hpp"

namespace lockstep {

Stages::Stages(const ModelGraph& graph, const Partition& partition, const std::vector<StageId>& ids,
               const Losses& losses, const StageOptions& options, Weights& weights, const MemoryPool& pool,
               Feeder* feeder)
    : graph_(graph),
      weights_(weights),
      pool_(pool),
      feeder_(feeder),
      first_(partition.topology.in_replica(StageId(0), partition.topology.replica_of(ids.front()))) {
  for (const StageId id : ids)
    stages_.try_emplace(id, AtWork{Stage(graph, partition, id, losses, options, weights.of(id)), {}, {}});
  for (const FlowContents& flow : partition.flows) {
    if (!stages_.contains(flow.from) || !stages_.contains(flow.to)) continue;
    at(flow.from).flows_from.push_back(&flow);
    at(flow.to).flows_to.push_back(&flow);
  }
}

void Stages::begin(const StepHeader& header, RowRun& run) {
  if (feeder_ && (header.mode == Mode::train || header.mode == Mode::evaluate)) feeder_->begin(header);
  run_ = &run;
  for (auto& [id, here] : stages_) here.stage.begin(header, run.stage(id, here.stage.layers()));
  resident_bytes_ = pool_.bytes();
}

void Stages::load_data(int micro_batch) {
  Tensors entries = feeder_->micro_batch(micro_batch);
  LOCKSTEP_CHECK(entries.size() == graph_.sources.size(), "the data gave ", entries.size(), " entries");
  for (std::size_t i = 0; i < entries.size(); ++i)
    at(first_).stage.put_value(micro_batch, graph_.sources[i], std::move(entries[i]));
}

void Stages::put_values(const FlowContents& flow, int micro_batch, Tensors values) {
  LOCKSTEP_CHECK(values.size() == flow.values.size(), "a value message of the wrong length");
  for (std::size_t i = 0; i < values.size(); ++i)
    at(flow.to).stage.put_value(micro_batch, flow.values[i], std::move(values[i]));
}

void Stages::put_gradients(const FlowContents& flow, int micro_batch, Tensors gradients) {
  LOCKSTEP_CHECK(gradients.size() == flow.gradients.size(), "a gradient message of the wrong length");
  for (std::size_t i = 0; i < gradients.size(); ++i)
    at(flow.from).stage.put_gradient(micro_batch, flow.gradients[i].value, flow.gradients[i].use,
                                     std::move(gradients[i]));
}

void Stages::compute(const Action& action, bool recompute) {
  release_sent();
  AtWork& here = at(action.stage);
  const std::int64_t bytes_before = kept_bytes();
  switch (action.op) {
    case Op::forward:
      if (action.stage == first_) load_data(action.micro_batch);
      here.stage.forward(action.micro_batch, recompute);
      break;
    case Op::backward: here.stage.backward(action.micro_batch); break;
    case Op::input_grad: here.stage.input_grad(action.micro_batch); break;
    case Op::weight_grad: here.stage.weight_grad(action.micro_batch); return;
  }
  std::int64_t& in_flight_bytes = run_->result.report.in_flight_bytes;
  in_flight_bytes = std::max(in_flight_bytes, pool_.bytes() - resident_bytes_ - weights_.gradient_bytes());
  if (action.op == Op::forward) meter(action.stage).kept_by_forward(kept_bytes() - bytes_before, recompute);
  deliver(action);
  sent_ = {action.stage, action.micro_batch, action.op, bytes_before};
}

/// For differences: what this worker's own thread has made and not freed, without summed gradients. (Others free or
/// take over at any time what was sent to them.)
std::int64_t Stages::kept_bytes() const {
  return MemoryPool::net_bytes_of_this_thread() - weights_.gradient_bytes();
}

void Stages::deliver(const Action& action) {
  const AtWork& here = at(action.stage);
  if (action.op == Op::forward)
    for (const FlowContents* flow : here.flows_from)
      put_values(*flow, action.micro_batch, here.stage.values_of(*flow, action.micro_batch));
  else
    for (const FlowContents* flow : here.flows_to)
      put_gradients(*flow, action.micro_batch, here.stage.gradients_of(*flow, action.micro_batch));
}

Tensors Stages::values_of(const FlowContents& flow, int micro_batch) const {
  return stages_.at(flow.from).stage.values_of(flow, micro_batch);
}

Tensors Stages::gradients_of(const FlowContents& flow, int micro_batch) const {
  return stages_.at(flow.to).stage.gradients_of(flow, micro_batch);
}

void Stages::release_sent() {
  if (!sent_.stage.valid()) return;
  AtWork& here = at(sent_.stage);
  if (sent_.op == Op::forward) {
    here.stage.release_values(sent_.micro_batch);
  } else {
    here.stage.release_gradients(sent_.micro_batch);
    if (sent_.op == Op::input_grad) meter(sent_.stage).kept_by_input_grad(kept_bytes() - sent_.bytes_before);
  }
  sent_ = {};
}

Tensors Stages::statistics(StageId stage) {
  return at(stage).stage.collected().message();
}

void Stages::put_statistics(StageId stage, const Tensors& statistics) {
  at(stage).stage.collected().put(statistics);
}

Tensors Stages::take_statistics(StageId stage) {
  Tensors statistics = this->statistics(stage);
  at(stage).stage.collected().clear();
  return statistics;
}

void Stages::end_step() {
  for (auto& [id, here] : stages_) here.stage.end_step();
}

}  // namespace lockstep
