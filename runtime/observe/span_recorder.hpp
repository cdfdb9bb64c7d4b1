// SPDX-License-Identifier: Apache-2.0
//
// What one worker did in a few steps, on its own clock: the measured side of a Timeline. Whole training steps only;
// evaluations between them leave a gap. It reads no clock itself and never blocks; memory is bounded (RecordRange).
// One thread: the worker's. Not the flight recorder, which keeps the last instructions of a job that dies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/schedule/step_header.hpp"
#include "runtime/schedule/timeline.hpp"

namespace lockstep {

/// Which training steps to record: [first, first + steps).
struct RecordRange {
  std::int64_t first = 1;
  int steps = 0;  ///< 0: record nothing
  /// Per worker. A step that would go beyond is left out, and so are those after it; the first step is recorded anyhow,
  /// cut off at this many.
  std::size_t most_spans = 32768;
};

/// The range that shows a run in its stride: up to 3 steps, after up to 2 of warming up. `done`: steps before this run.
RecordRange usual_range(std::int64_t total_steps, std::int64_t done = 0);

/// Tensor bytes alive on a worker after a compute.
struct MemorySample {
  WorkerId worker;
  double at_us = 0;
  std::int64_t bytes = 0;
};

class SpanRecorder {
 public:
  /// Waits shorter than this are left out: nobody can see them, and most messages are there when they are needed.
  static constexpr double kShortestWaitUs = 1.0;

  SpanRecorder(WorkerId worker, RecordRange range) : worker_(worker), range_(range) {}

  /// After each instruction of a program, in order. `mode` and `step`: of the program's header. Times: now_us().
  void add(Mode mode, std::int64_t step, const Instruction& what, double start_us, double end_us);
  /// After a compute that has been added.
  void held(double at_us, std::int64_t bytes);
  /// Whether the program of this header is being recorded.
  bool takes(Mode mode, std::int64_t step) const {
    return mode == Mode::train && step >= range_.first && step - range_.first < range_.steps;
  }

  /// Span::step counts from the first step of the range.
  const std::vector<Span>& spans() const { return spans_; }
  const std::vector<MemorySample>& memory() const { return memory_; }
  /// Whether the limit was reached: some steps of the range, or the end of the first one, are missing.
  bool cut() const { return cut_; }

 private:
  bool has_room(int step);

  WorkerId worker_;
  RecordRange range_;
  std::vector<Span> spans_;
  std::vector<MemorySample> memory_;
  int last_step_ = -1;
  bool cut_ = false;
};

/// What a job recorded in this process.
struct Recorded {
  std::vector<Span> spans;  ///< by worker, then ascending; on the process's clock (now_us)
  std::vector<MemorySample> memory;
  bool cut = false;
};

}  // namespace lockstep
