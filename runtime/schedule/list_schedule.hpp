// SPDX-License-Identifier: Apache-2.0
//
// List scheduling: time goes on, and each worker that becomes free takes the best action that is ready, by a rule. What
// is ready is required_before() and nothing else. Private to this folder; auto.cpp runs many rules and lets the
// simulator judge.
//
// The idea of building a zero-bubble schedule from measured costs by such a heuristic: Qi et al., "Zero Bubble Pipeline
// Parallelism", ICLR 2024, section 3.1 ("the automatic pipeline scheduling algorithm").
#pragma once

#include <string>
#include <vector>

#include "runtime/schedule/simulation.hpp"

namespace lockstep {

/// How a worker chooses. W never keeps an F or I waiting that is ready.
struct ListRule {
  bool gradients_first = true;  ///< I before F when both are ready
  /// Most forwards of stage s alive until their I: ceil(alive * (S - s) / v), at least 1. 1F1B has 1, interleaved
  /// 1F1B 2.
  double alive = 1;
  /// A worker with nothing else to do runs W when the next F or I that it knows of is at least so many W away.
  double gap = 0;
  /// Most W that may wait; beyond, W comes first. 0: W directly after its I.
  int waiting = 0;

  std::string text() const;  ///< "backwards first, 1.5 x the forwards of 1f1b alive, W in gaps, at most 8 waiting"
};

/// Forwards, and I and W apart, of every stage in ascending micro-batches. Messages cost what Costs says, and a send
/// never waits. Always complete and valid: a micro-batch that has entered can always go on.
Schedule list_schedule(const Topology& topology, const Costs& costs, const std::vector<WorkerId>& row_of_stage,
                       int micro_batches, const ListRule& rule);

}  // namespace lockstep
