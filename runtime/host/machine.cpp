// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/machine.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace lockstep {
namespace {

namespace fs = std::filesystem;

/// The number behind `key` in a file of "key number" lines; 0 when there is none.
std::int64_t number_in(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  while (file >> word) {
    std::int64_t number = 0;
    if (word == key) return file >> number ? number : 0;
  }
  return 0;
}

/// The number that a file consists of; nullopt for "max", or no file.
std::optional<std::int64_t> number_of(const fs::path& path) {
  std::int64_t number = 0;
  return std::ifstream(path) >> number ? std::optional(number) : std::nullopt;
}

template <typename Look>
void for_each_group(const Look& look) {
  fs::path group = "/";
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("0::")) group = line.substr(3);
  for (;; group = group.parent_path()) {
    look(fs::path("/sys/fs/cgroup" + group.string()));
    if (group == group.parent_path()) return;
  }
}

}  // namespace

std::optional<double> cpu_quota() {
  std::optional<double> least;
  for_each_group([&](const fs::path& group) {
    double time = 0, period = 1;
    if (std::ifstream file(group / "cpu.max"); file >> time >> period)  // "max" is no number
      least = std::min(least.value_or(time / period), time / period);
  });
  return least;
}

MachineMemory machine_memory() {
  constexpr std::int64_t kKiB = 1024;
  MachineMemory memory;
  memory.total_bytes = number_in("/proc/meminfo", "MemTotal:") * kKiB;
  memory.available_bytes = number_in("/proc/meminfo", "MemAvailable:") * kKiB;
  for_each_group([&](const fs::path& group) {
    const auto limit = number_of(group / "memory.max"), used = number_of(group / "memory.current");
    if (!limit) return;
    memory.group_bytes = std::min(memory.group_bytes.value_or(*limit), *limit);
    const std::int64_t cached = number_in(group / "memory.stat", "inactive_file");
    memory.available_bytes = std::min(memory.available_bytes, *limit - used.value_or(0) + cached);
  });
  rlimit data{};
  if (getrlimit(RLIMIT_DATA, &data) == 0 && data.rlim_cur != RLIM_INFINITY)
    memory.available_bytes = std::min(memory.available_bytes, static_cast<std::int64_t>(data.rlim_cur) -
                                                                  number_in("/proc/self/status", "VmData:") * kKiB);
  return memory;
}

}  // namespace lockstep
