// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/programs.hpp"

#include <algorithm>

#include "runtime/schedule/generators.hpp"

namespace lockstep {

Programs::Programs(Schedule schedule, Topology topology, LowerOptions options, Order order)
    : schedule_(std::move(schedule)), topology_(std::move(topology)), options_(std::move(options)), order_(order) {
  options_.mode = Mode::stop;
  options_.lanes = lower(schedule_, topology_, options_).lanes;
}

const Program& Programs::get(Mode mode, int micro_batches) {
  std::lock_guard lock(mutex_);
  const auto [entry, is_new] = programs_.try_emplace({mode, micro_batches});
  if (is_new) entry->second = make(mode, micro_batches);
  return entry->second;
}

Program Programs::make(Mode mode, int micro_batches) const {
  // Programs without compute still need the rows of a schedule.
  const Schedule schedule = first_micro_batches(schedule_, std::max(micro_batches, 1));
  LowerOptions options = options_;
  options.mode = mode;
  Program program = lower(schedule, topology_, options);
  require_valid(program, order_);
  return program;
}

}  // namespace lockstep
