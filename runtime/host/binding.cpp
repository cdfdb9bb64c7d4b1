// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/binding.hpp"

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

std::string more_than_cores(const std::vector<Tenants>& processes, int threads) {
  struct Host {
    std::set<int> cpus;
    int workers = 0;
  };
  std::map<std::string, Host> hosts;
  const auto finding = [threads](const std::string& host, int workers, std::size_t cores) {
    if (static_cast<std::size_t>(workers) * static_cast<std::size_t>(threads) <= cores) return std::string();
    return concat(workers, " workers of ", threads, " thread(s) are more than the ", cores, " cores",
                  host.empty() ? " here" : " of " + host);
  };
  for (const Tenants& process : processes) {
    Host& host = hosts[process.host];
    host.cpus.insert(process.cpus.begin(), process.cpus.end());
    host.workers += process.workers;
  }
  for (const auto& [name, host] : hosts)
    if (std::string found = finding(name, host.workers, host.cpus.size()); !found.empty()) return found;
  for (const Tenants& process : processes)
    if (std::string found = finding(process.host, process.workers, process.cpus.size()); !found.empty()) return found;
  return "";
}

void bind_this_thread(const Cpus& cpus) {
  if (cpus.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    throw Error(concat("workers.bind: cannot bind to CPU ", join(cpus), ": ", std::strerror(errno)));
}

}  // namespace lockstep
