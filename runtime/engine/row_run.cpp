// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/row_run.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <thread>
#include <utility>

namespace lockstep {

RowRun::RowRun(int row, const StepHeader& header, Stopwatch& watch, SpanRecorder* spans)
    : watch_(watch), spans_(spans), mode_(header.mode), step_(header.step) {
  result.report.row = row;
}

StageRun& RowRun::stage(StageId id, int layers) {
  return stages_.try_emplace(id, watch_, id.value(), layers, readings).first->second;
}

void RowRun::did(const Instruction& instruction, EdgeKind edge, Stopwatch::Mark begin, Stopwatch::Mark end,
                 std::int64_t held) {
  // What its worker does on the host meanwhile is no time of the device.
  if (begin.event || watch_.stream().is_of_host())
    done_.push_back({instruction, edge, std::move(begin), std::move(end), held});
}

void RowRun::end() {
  readings.fetch();
  ended_ = watch_.stream().record();
}

void RowRun::settle(const std::function<void()>& meanwhile) {
  constexpr std::chrono::microseconds look{20};
  while (!ended_.over()) {
    meanwhile();
    std::this_thread::sleep_for(look);
  }
  readings.take();
  set_watch();
  for (const Done& done : done_) {
    const double begin_us = watch_.us(done.begin), end_us = watch_.us(done.end);
    result.report.count(done.instruction.kind, done.edge, begin_us, end_us);
    if (!spans_ || !spans_->takes(mode_, step_)) continue;
    spans_->add(mode_, step_, done.instruction, begin_us, end_us);
    if (done.instruction.kind == InstructionKind::compute) spans_->held(end_us, done.held);
  }
  done_.clear();
  WorkerReport& report = result.report;
  if (!watch_.stream().is_of_host())  // it stands still where it waits: for messages, or to be told something
    report.wait_us = std::max(0.0, report.end_us - report.begin_us - report.compute_us);
  for (auto& [id, stage] : stages_) {
    stage.meter.settle();
    report.stages.push_back(stage.meter.report());
    result.non_finite = first_of(result.non_finite, stage.non_finite);
    for (const auto& [key, loss] : stage.losses) result.losses.push_back({key.first, key.second, loss});
    std::move(stage.metrics.begin(), stage.metrics.end(), std::back_inserter(result.metrics));
  }
  stages_.clear();
}

void RowRun::set_watch() {
  const Done *first = nullptr, *last = nullptr;
  for (const Done& done : done_) {
    if (!done.begin.event) continue;
    if (!first) first = &done;
    last = &done;
  }
  if (first) watch_.set(first->begin, last->end);
}

}  // namespace lockstep
