// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/programs.hpp"

#include <algorithm>

#include "runtime/schedule/validate.hpp"

namespace lockstep {

const Program& Programs::get(Mode mode, int micro_batches) {
  std::lock_guard lock(mutex_);
  const auto [entry, is_new] = programs_.try_emplace({mode, micro_batches});
  if (is_new) entry->second = make(mode, micro_batches);
  return entry->second;
}

Program Programs::make(Mode mode, int micro_batches) const {
  // Programs without compute still need the rows of a schedule.
  Program program = lower(schedule_(std::max(micro_batches, 1)), topology_, {mode, clip_});
  require_valid(program);
  return program;
}

}  // namespace lockstep
