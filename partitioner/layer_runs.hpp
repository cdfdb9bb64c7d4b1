// SPDX-License-Identifier: Apache-2.0
//
// Every run of layers as a stage: its times and bytes, made when first asked for and shared by all searches. Bytes are
// at least those that simulate() finds. Private to this folder.
#pragma once

#include <deque>
#include <vector>

#include "partitioner/cost_model.hpp"
#include "partitioner/schedule_facts.hpp"

namespace lockstep {

struct LayerRun {
  StageCost cost;  ///< bytes only; times are in times()
  bool has_backward = false, has_weight_grad = false;
  double resident_bytes = 0;                     ///< when it is all that the worker has
  double values_bytes = 0, gradients_bytes = 0;  ///< of slots; 0 when they may not be needed
};

class LayerRuns {
 public:
  /// On one kind of device. Keeps a reference. `several`: stages a worker, which hand their values over.
  LayerRuns(const CostModel& model, int kind, bool several);
  LayerRuns(LayerRuns&&) = default;
  LayerRuns(const LayerRuns&) = delete;  // `made_` points into `runs_`

  /// Layers [first, last).
  const LayerRun& run(int first, int last);
  /// At speed 1. `update_us`: at least.
  StageTimes times(int first, int last) const;
  double update_us(int first, int last) const {
    return update_us_[static_cast<std::size_t>(last)] - update_us_[static_cast<std::size_t>(first)];
  }
  /// Parameters, optimizer state and what else stands when the worker has other stages too: at least.
  double resident_share_bytes(int first, int last) const {
    return resident_bytes_[static_cast<std::size_t>(last)] - resident_bytes_[static_cast<std::size_t>(first)];
  }
  const CostModel& model() const { return model_; }

 private:
  const CostModel& model_;
  int kind_;
  bool apart_;  ///< each stage is on a rank of its own: what is read from another one comes in a message
  std::vector<double> forward_us_, input_grad_us_, weight_grad_us_, recompute_us_, update_us_,
      resident_bytes_;  ///< of layers before
  std::deque<LayerRun> runs_;
  std::vector<std::vector<const LayerRun*>> made_;  ///< [first][last - first - 1]
};

/// For every kind of device.
std::vector<LayerRuns> runs_by_kind(const CostModel& model, bool several);

}  // namespace lockstep
