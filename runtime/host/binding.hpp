// SPDX-License-Identifier: Apache-2.0
//
// Which CPUs each worker runs on when `workers.bind: cores` asks for it. A launcher, taskset or a container may have
// left this process only some CPUs of the machine: nothing here ever goes beyond those. No torch here.
#pragma once

#include <string>
#include <vector>

namespace lockstep {

using Cpus = std::vector<int>;  ///< numbers as the kernel counts, ascending

/// The CPUs that this process may run on.
Cpus allowed_cpus();

/// `threads` CPUs for each of `workers` workers, when `workers_before` others share the same CPUs and have taken the
/// first ones. Empty when there are too few: then binding would make workers share a CPU while others idle.
std::vector<Cpus> cpus_of_workers(const Cpus& allowed, int workers_before, int workers, int threads);

/// The workers of one process, and where they may run.
struct Tenants {
  std::string host;
  Cpus cpus;
  int workers = 0;
};

/// "4 workers of 1 thread(s) are more than the 2 cores of node7": of the first host, or of the first process that was
/// bound to a part of one, where it is so; else empty. Of a host without a name: "... the 2 cores here".
std::string more_than_cores(const std::vector<Tenants>& processes, int threads);

/// Binds the calling thread; threads that it starts later inherit it. Does nothing for an empty list. Throws Error when
/// the kernel refuses.
void bind_this_thread(const Cpus& cpus);

}  // namespace lockstep
