// SPDX-License-Identifier: Apache-2.0
//
// Schedule -> Program. Pure, deterministic and torch-free: every rank lowers by itself and gets the same program.
//
// Shape of a row (r = row, R = rows; what is local to one row is left out):
//
//   make_header (r = 0)  |  post, receive header (r > 0)
//   send header to r+1 (r < R-1)
//   send result (r > 0)  |  post result of every row (r = 0)            result of the PREVIOUS program: no drain
//   per action: receive its inputs; post the inputs of the next action; compute; send its outputs
//   per tie held by this row: post from all, send to all, receive from all other holding rows; then tie_sum (train)
//     (a tie within one row has no messages, but its buffers are added by tie_sum all the same)
//   clip: norm_parts, send norm, post+receive scale (r > 0)
//         post norms, norm_parts, receive norms, norm_total, send scales (r = 0)
//   clip with post_validation: the same, with update straight behind the send of norm (r > 0) or behind norm_parts
//         (r = 0), and amend at the end: what an update costs lies in the drain, not behind the norm
//   no clip: norm_parts (they travel with the result)                                          (train)
//   update                                                                                     (train)
//   receive result of every row (r = 0)
//   wait_sends
//
// stop: header only. evaluate: the schedule's F actions only. flush: header and results only.
#pragma once

#include "runtime/schedule/program.hpp"

namespace lockstep {

struct LowerOptions {
  Mode mode = Mode::train;
  bool clip = false;  ///< a global norm is needed before the update
  /// Of Program::lanes, so that a program of fewer micro-batches has the edges of the full one. Empty: as many as the
  /// schedule needs.
  std::vector<int> lanes = {};
  bool post_validation = false;
  Recompute recompute = Recompute::never;
};

/// Drops B, I and W of stages without backward, W of stages without trainable layers (B then means I alone), and sends
/// no gradient over flows that are not differentiable. Throws ScheduleError when the schedule does not fit the topology
/// (other number of stages, an action out of range).
Program lower(const Schedule& schedule, const Topology& topology, const LowerOptions& options);

}  // namespace lockstep
