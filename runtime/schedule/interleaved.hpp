// SPDX-License-Identifier: Apache-2.0
//
// The order in which interleaved schedules go through stages and micro-batches: micro-batches in groups of about P, and
// within a group stage by stage. P = 2, v = 2, M = 4:  0F0 0F1 2F0 2F1 | 0F2 0F3 2F2 2F3.
//
// Megatron-LM asks for M mod P = 0 and makes groups of P. Here M is any number: there are max(1, M div P) groups, and
// the first (M mod groups) of them are one larger. Where P divides M this is Megatron's order. Private to this folder.
#pragma once

#include <vector>

#include "runtime/schedule/generators.hpp"

namespace lockstep {

struct Visit {
  int number = 0;  ///< which of the worker's stages, in the order of the forwards; backwards visit them from the last
  int micro_batch = 0;
};

struct InterleavedOrder {
  std::vector<Visit> visits;  ///< virtual_stages * micro_batches
  int first_group = 0;        ///< micro-batches in the first group, which is the largest
};

inline InterleavedOrder interleaved_order(const ScheduleShape& shape) {
  const int groups = std::max(1, shape.micro_batches / shape.workers);
  const int larger = shape.micro_batches % groups;
  const auto size = [&](int group) { return shape.micro_batches / groups + (group < larger ? 1 : 0); };
  InterleavedOrder order;
  order.first_group = size(0);
  for (int group = 0, first = 0; group < groups; first += size(group++)) {
    for (int number = 0; number < shape.virtual_stages; ++number) {
      for (int m = first; m < first + size(group); ++m) order.visits.push_back({number, m});
    }
  }
  return order;
}

}  // namespace lockstep
