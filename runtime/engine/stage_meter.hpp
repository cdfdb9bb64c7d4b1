// SPDX-License-Identifier: Apache-2.0
//
// Where the time of one stage goes in one program run, and what its micro-batches keep: told by Stage what it is at,
// by the worker what was kept. The profiler uses the same one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/device/stopwatch.hpp"
#include "runtime/schedule/step_result.hpp"

namespace lockstep {

class StageMeter {
  struct Interval {
    double* time = nullptr;   // of report_
    double* outer = nullptr;  // whose time this is not; may be null
    Stopwatch::Mark begin, end;
  };

 public:
  /// `watch` outlives it.
  StageMeter(const Stopwatch& watch, int stage, int layers) : watch_(watch) {
    report_.stage = stage;
    report_.layer_us.assign(static_cast<std::size_t>(layers), 0.0);
  }
  StageMeter(const StageMeter&) = delete;
  StageMeter& operator=(const StageMeter&) = delete;

  /// Of a device: its times are there after settle().
  const StageReport& report() const { return report_; }
  /// The watch has been set for the whole run.
  void settle() {
    for (const Interval& interval : intervals_) add(interval);
    intervals_.clear();
  }

  /// A time of StageReport, while alive. They nest: the inner one's time is not the outer one's.
  class Work {
   public:
    Work(StageMeter& meter, double StageReport::*time)
        : meter_(meter), interval_{&(meter.report_.*time), meter.at_work_, meter.watch_.mark(), {}} {
      meter_.at_work_ = interval_.time;
    }
    ~Work() {
      meter_.at_work_ = interval_.outer;
      meter_.end(interval_);
    }
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;

   private:
    StageMeter& meter_;
    Interval interval_;
  };

  /// A layer's part of all that, whatever it is; `layer`: of the stage.
  class Layer {
   public:
    Layer(StageMeter& meter, int layer)
        : meter_(meter),
          interval_{&meter.report_.layer_us[static_cast<std::size_t>(layer)], nullptr, meter.watch_.mark(), {}} {}
    ~Layer() { meter_.end(interval_); }
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;

   private:
    StageMeter& meter_;
    Interval interval_;
  };

  void recomputed() { ++report_.recomputed; }
  void counted(double operations) { report_.operations += operations; }

  /// What a forward kept, in bytes: of each sort the first counts.
  void kept_by_forward(std::int64_t bytes, bool recompute) {
    keep(recompute ? report_.recompute_activation_bytes : report_.activation_bytes, bytes);
  }
  /// By how much that changed (mostly less) by an I that W is still to follow.
  void kept_by_input_grad(std::int64_t difference) {
    const std::int64_t held =
        report_.activation_bytes > 0 ? report_.activation_bytes : report_.recompute_activation_bytes;
    keep(report_.weight_grad_bytes, held + difference);
  }

 private:
  void end(Interval& interval) noexcept {
    try {
      interval.end = watch_.mark();
      if (interval.end.event)
        intervals_.push_back(std::move(interval));
      else
        add(interval);
    } catch (const c10::Error&) {  // the device has failed: whoever computes there hears of it
    }
  }
  void add(const Interval& interval) {
    const double took_us = watch_.us(interval.end) - watch_.us(interval.begin);
    *interval.time += took_us;
    if (interval.outer) *interval.outer -= took_us;
  }
  static void keep(std::int64_t& first, std::int64_t bytes) {
    if (first == 0 && bytes > 0) first = bytes;
  }

  const Stopwatch& watch_;
  StageReport report_;
  double* at_work_ = nullptr;        // the innermost Work's
  std::vector<Interval> intervals_;  // of a device, whose times are not known yet
};

}  // namespace lockstep
