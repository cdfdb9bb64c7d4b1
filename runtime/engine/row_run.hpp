// SPDX-License-Identifier: Apache-2.0
//
// What one run of a program gives at one row. A device computes later than it is told to: what it gives, and how long
// that took, is asked for while the run is told and known when the device has come to its end, which nobody waits for
// before the next run has begun.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "runtime/device/readings.hpp"
#include "runtime/engine/stage_meter.hpp"
#include "runtime/observe/span_recorder.hpp"

namespace lockstep {

/// What one stage has to say of one run.
struct StageRun {
  StageRun(const Stopwatch& watch, int stage, int layers, Readings& of_row)
      : meter(watch, stage, layers), readings(of_row) {}

  StageMeter meter;
  Readings& readings;
  std::map<std::pair<int, int>, double> losses;  ///< by (head, micro-batch)
  std::vector<MetricState> metrics;
  NonFinite non_finite;

  void note_non_finite(int layer, int micro_batch, const char* what) {
    non_finite = first_of(non_finite, NonFinite{layer, micro_batch, what});
  }
};

/// One thread, the worker's.
class RowRun {
 public:
  /// References outlive it; `spans` may be null.
  RowRun(int row, const StepHeader& header, Stopwatch& watch, SpanRecorder* spans);
  RowRun(const RowRun&) = delete;
  RowRun& operator=(const RowRun&) = delete;

  RowResult result;   ///< complete after settle()
  Readings readings;  ///< of whatever the row wants to know
  StageRun& stage(StageId id, int layers);

  /// Of an instruction that has just been told. `edge`: of a message; `held`: tensor bytes behind it.
  void did(const Instruction& instruction, EdgeKind edge, Stopwatch::Mark begin, Stopwatch::Mark end,
           std::int64_t held);
  /// All has been told.
  void end();
  /// All is known from here on. `meanwhile`: called between two looks while the device is still at it. Throws
  /// c10::Error when that has failed.
  void settle(const std::function<void()>& meanwhile);

 private:
  struct Done {
    Instruction instruction;
    EdgeKind edge;
    Stopwatch::Mark begin, end;
    std::int64_t held = 0;
  };
  void set_watch();

  Stopwatch& watch_;
  SpanRecorder* spans_;
  Mode mode_;
  std::int64_t step_;
  std::vector<Done> done_;
  std::map<StageId, StageRun> stages_;
  StreamEvent ended_;
};

}  // namespace lockstep
