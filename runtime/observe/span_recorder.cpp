// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/span_recorder.hpp"

#include <algorithm>

namespace lockstep {

RecordRange usual_range(std::int64_t total_steps, std::int64_t done) {
  constexpr std::int64_t kMostSteps = 3, kMostWarmUp = 2;
  const std::int64_t left = std::max<std::int64_t>(total_steps - done, 1);
  const std::int64_t steps = std::clamp<std::int64_t>(left - 1, 1, kMostSteps);
  const std::int64_t warm_up = std::min(left - steps, kMostWarmUp);
  return {done + warm_up + 1, static_cast<int>(steps)};
}

void SpanRecorder::add(Mode mode, std::int64_t step, const Instruction& what, double start_us, double end_us) {
  if (!takes(mode, step) || what.kind == InstructionKind::post) return;
  if (!is_work(what) && end_us - start_us < kShortestWaitUs) return;
  const int relative = static_cast<int>(step - range_.first);
  if (!has_room(relative)) return;
  spans_.push_back({worker_, what, relative, start_us, end_us});
}

bool SpanRecorder::has_room(int step) {
  if (cut_) return false;
  const std::size_t done = spans_.size();
  if (step != last_step_) {  // is there room for a step like those before?
    const std::size_t steps = static_cast<std::size_t>(last_step_) + 1;
    cut_ = steps > 0 && done + done / steps > range_.most_spans;
    last_step_ = step;
  }
  cut_ = cut_ || done >= range_.most_spans;
  return !cut_;
}

void SpanRecorder::held(double at_us, std::int64_t bytes) {
  if (!cut_) memory_.push_back({worker_, at_us, bytes});
}

}  // namespace lockstep
