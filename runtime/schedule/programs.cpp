// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/programs.hpp"

#include <algorithm>
#include <utility>

#include "runtime/schedule/generators.hpp"

namespace lockstep {
namespace {

/// Of all rows.
Schedule of_all(const Schedule& one, const Topology& topology, int micro_batches) {
  Schedule all = replicated(one, topology.replicas, micro_batches);
  all.rows.resize(all.rows.size() + static_cast<std::size_t>(topology.servers));
  return all;
}

}  // namespace

Programs::Programs(Schedule schedule, Topology topology, LowerOptions options, Order order,
                   std::vector<int> memory_of_row)
    : schedule_(std::move(schedule)),
      topology_(std::move(topology)),
      wiring_(wiring_of(topology_.replicas.count > 1 || topology_.servers > 0
                            ? of_all(schedule_, topology_, topology_.replicas.micro_batches)
                            : schedule_,
                        topology_, std::move(memory_of_row))),
      options_(options),
      order_(order) {}

const Program& Programs::get(Mode mode, int micro_batches) {
  std::lock_guard lock(mutex_);
  const auto [entry, is_new] = programs_.try_emplace({mode, micro_batches});
  if (is_new) entry->second = make(mode, micro_batches);
  return entry->second;
}

Program Programs::make(Mode mode, int micro_batches) const {
  const Schedule schedule = of_all(schedule_, topology_, std::max(micro_batches, 1));
  LowerOptions options = options_;
  options.mode = mode;
  Program program = lower(schedule, topology_, wiring_, options);
  require_valid(program, order_);
  return program;
}

}  // namespace lockstep
