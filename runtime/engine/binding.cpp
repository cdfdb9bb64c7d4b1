// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/binding.hpp"

#include <sched.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <set>

#include "runtime/base/error.hpp"

namespace lockstep {

Cpus allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  Cpus cpus;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

std::vector<Cpus> cpus_of_workers(const Cpus& allowed, int workers_before, int workers, int threads) {
  const auto needed = (static_cast<std::size_t>(workers_before) + static_cast<std::size_t>(workers)) *
                      static_cast<std::size_t>(threads);
  if (needed > allowed.size()) return {};
  std::vector<Cpus> bound;
  auto next = allowed.begin() + static_cast<std::ptrdiff_t>(workers_before) * threads;
  for (int worker = 0; worker < workers; ++worker, next += threads) bound.emplace_back(next, next + threads);
  return bound;
}

std::string more_workers_than_cores(int workers, int threads, int cores) {
  if (static_cast<long>(workers) * threads <= cores) return "";
  return concat(workers, workers == 1 ? " worker of " : " workers of ", threads,
                threads == 1 ? " thread are more than the " : " threads are more than the ", cores,
                cores == 1 ? " core" : " cores", " here: they take turns, which no plan and no simulation knows of");
}

void bind_this_thread(const Cpus& cpus) {
  if (cpus.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    throw Error(concat("workers.bind: cannot bind to CPU ", join(cpus), ": ", std::strerror(errno)));
}

std::string more_workers_than_cores(const std::vector<Tenants>& processes, int threads) {
  std::map<std::string, std::set<int>> cpus_of_host;
  std::map<std::string, int> workers_of_host;
  for (const Tenants& process : processes) {
    cpus_of_host[process.host].insert(process.cpus.begin(), process.cpus.end());
    workers_of_host[process.host] += process.workers;
  }
  std::vector<Tenants> places;  // whole hosts, then each process by itself
  for (const auto& [host, cpus] : cpus_of_host)
    places.push_back({host, Cpus(cpus.begin(), cpus.end()), workers_of_host[host]});
  places.insert(places.end(), processes.begin(), processes.end());
  for (const Tenants& place : places) {
    const std::string found = more_workers_than_cores(place.workers, threads, static_cast<int>(place.cpus.size()));
    if (!found.empty()) return cpus_of_host.size() > 1 ? concat(place.host, ": ", found) : found;
  }
  return "";
}

}  // namespace lockstep
