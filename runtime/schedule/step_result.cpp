// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/step_result.hpp"

#include <algorithm>
#include <tuple>

namespace lockstep {

void WorkerReport::count(InstructionKind kind, EdgeKind edge, double start, double end) {
  switch (kind) {
    case InstructionKind::receive:
    case InstructionKind::send:
      if (between_replicas(edge)) replica_wait_us += std::max(0.0, end - start);
      [[fallthrough]];
    case InstructionKind::wait_sends: wait_us += std::max(0.0, end - start); return;
    case InstructionKind::update:
    case InstructionKind::amend: update_us += end - start; [[fallthrough]];
    case InstructionKind::reduce:
      if (kind == InstructionKind::reduce) reduce_us += end - start;
      [[fallthrough]];
    case InstructionKind::compute:
    case InstructionKind::shared_sum:
    case InstructionKind::norm_parts:
      compute_us += end - start;
      end_us = end;
      if (begin_us == 0) begin_us = start;
      return;
    case InstructionKind::make_header:
    case InstructionKind::post:
    case InstructionKind::norm_total: return;
  }
}

void StepResult::add(const StepResult& batch) {
  mode = batch.mode;
  step = batch.step;
  set = batch.set;
  samples += batch.samples;
  if (!batch.metrics.empty()) metrics = batch.metrics;
  elapsed_us += batch.elapsed_us;
  if (heads.empty()) {
    heads = batch.heads;
    return;
  }
  for (std::size_t head = 0; head < heads.size(); ++head) {
    heads[head].sum += batch.heads[head].sum;
    heads[head].denominator += batch.heads[head].denominator;
  }
}

double StepResult::loss() const {
  double sum = 0;
  for (const HeadLoss& head : heads) sum += head.weight * head.loss();
  return sum;
}

double StepResult::operations() const {
  double sum = 0;
  for (const WorkerReport& worker : workers)
    for (const StageReport& stage : worker.stages) sum += stage.operations;
  return sum;
}

double StepResult::product_rate() const {
  double sum = 0;
  for (const WorkerReport& worker : workers) {
    if (worker.is_server) continue;
    if (worker.product_rate <= 0) return 0;
    sum += worker.product_rate;
  }
  return sum;
}

const NonFinite& first_of(const NonFinite& a, const NonFinite& b) {
  if (!a.found() || !b.found()) return a.found() ? a : b;
  // Outputs come before losses, gradients after both; backward runs from the last layer down.
  const auto order = [](const NonFinite& n) {
    const bool forward = n.what == "output";
    const int phase = forward ? 0 : n.what == "loss" ? 1 : n.what == "input gradient" ? 2 : 3;
    return std::tuple(phase, n.micro_batch, forward ? n.layer : -n.layer);
  };
  return order(b) < order(a) ? b : a;
}

}  // namespace lockstep
