// SPDX-License-Identifier: Apache-2.0
//
// What a schedule says before anybody knows what its stages cost: the order of a row's actions never depends on costs,
// so neither does how many micro-batches are alive when, nor what a worker has to do between two actions. From it come
// bounds that no cut can beat, without a simulation. Private to this folder.
#pragma once

#include <limits>
#include <vector>

#include "runtime/schedule/schedule.hpp"
#include "runtime/schedule/simulation.hpp"

namespace lockstep {

/// A moment of a row, as far as one of its stages is concerned: how often each of its bytes is there.
struct Moment {
  int held = 0, checkpoints = 0, weight_grad = 0;  ///< micro-batches
  int values = 0, gradients = 0;                   ///< messages that may have come in
  bool summed = false;                             ///< the gradients of its parameters are there
  int runs = -1;                                   ///< the Op that runs, -1: none of the stage's
  bool first = false, again = false;               ///< what runs makes the gradients; is of a micro-batch run again
  auto operator<=>(const Moment&) const = default;
};

/// How often each action of a stage runs.
struct ActionCounts {
  int stage = 0;
  int forwards = 0, input_grads = 0, weight_grads = 0;
  int again = 0;  ///< at least, of forwards run again
};

/// Costs of one stage as it is cut: nothing for what lowering drops.
struct StageTimes {
  double forward_us = 0, input_grad_us = 0, weight_grad_us = 0, recompute_us = 0;
};
double work_us(const std::vector<ActionCounts>& counts, const std::vector<StageTimes>& stages);

class ScheduleFacts {
 public:
  ScheduleFacts(Schedule schedule, Recompute recompute);

  const Schedule& schedule() const { return schedule_; }
  const std::vector<WorkerId>& rows() const { return rows_; }
  int stages() const { return schedule_.stages; }

  /// The most that a stage of this cost has at once, slots of these sizes included, whatever the rest is: at least.
  double peak_bytes(int stage, const StageCost& cost, bool has_backward, bool has_weight_grad, double values_bytes,
                    double gradients_bytes) const;

  const ActionCounts& whole_step(int stage) const { return whole_[static_cast<std::size_t>(stage)]; }
  /// On the stage's row, from its first forward to its last B or I, and to the end of the computes.
  const std::vector<ActionCounts>& to_last_gradient(int stage) const {
    return to_gradient_[static_cast<std::size_t>(stage)];
  }
  const std::vector<ActionCounts>& to_end(int stage) const { return to_end_[static_cast<std::size_t>(stage)]; }
  /// On the row of stage 0 behind its last B or I.
  const std::vector<ActionCounts>& behind_last_gradient() const { return behind_; }
  /// The last B or I of a stage alone.
  const ActionCounts& last_gradient(int stage) const { return last_gradient_[static_cast<std::size_t>(stage)]; }

 private:
  enum class Again { no, yes, unknown };
  /// Of each micro-batch of the stage, when its W is kept or dropped. Unknown: it depends on other stages.
  std::vector<Again> again_of(int stage, bool weights) const;
  std::vector<Moment> moments(int stage, bool backward, bool weights) const;
  std::vector<ActionCounts> count(const std::vector<Action>& row, std::size_t begin, std::size_t end) const;
  void find_paths();

  Schedule schedule_;
  Recompute recompute_;
  std::vector<WorkerId> rows_;
  std::vector<std::vector<Again>> again_at_least_;                           ///< by stage, W dropped
  std::vector<std::vector<Moment>> whole_stage_, without_w_, forward_only_;  ///< by stage, the largest
  std::vector<ActionCounts> whole_, last_gradient_;
  std::vector<std::vector<ActionCounts>> to_gradient_, to_end_;
  std::vector<ActionCounts> behind_;
};

}  // namespace lockstep
