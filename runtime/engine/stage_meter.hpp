// SPDX-License-Identifier: Apache-2.0
//
// Where the time of one stage goes in one program run, and what its micro-batches keep: told by Stage what it is at,
// by the worker what was kept. The profiler uses the same one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/clock.hpp"
#include "runtime/schedule/step_result.hpp"

namespace lockstep {

class StageMeter {
 public:
  /// A program run begins.
  void begin(int stage, int layers) {
    report_ = {};
    report_.stage = stage;
    report_.layer_us.assign(static_cast<std::size_t>(layers), 0.0);
  }
  const StageReport& report() const { return report_; }

  /// A time of StageReport, while alive. They nest: the inner one's time is not the outer one's.
  class Work {
   public:
    Work(StageMeter& meter, double StageReport::*time)
        : meter_(meter), time_(time), start_us_(now_us()), outer_us_(meter.inner_us_) {
      meter_.inner_us_ = 0;
    }
    ~Work() {
      const double elapsed_us = now_us() - start_us_;
      meter_.report_.*time_ += elapsed_us - meter_.inner_us_;
      meter_.inner_us_ = outer_us_ + elapsed_us;
    }
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;

   private:
    StageMeter& meter_;
    double StageReport::*time_;
    double start_us_, outer_us_;
  };

  /// A layer's part of all that, whatever it is; `layer`: of the stage.
  class Layer {
   public:
    Layer(StageMeter& meter, int layer)
        : sum_us_(meter.report_.layer_us[static_cast<std::size_t>(layer)]), start_us_(now_us()) {}
    ~Layer() { sum_us_ += now_us() - start_us_; }
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;

   private:
    double& sum_us_;
    double start_us_;
  };

  void recomputed() { ++report_.recomputed; }

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
  static void keep(std::int64_t& first, std::int64_t bytes) {
    if (first == 0 && bytes > 0) first = bytes;
  }

  StageReport report_;
  double inner_us_ = 0;  // of the works inside of the one at hand
};

}  // namespace lockstep
