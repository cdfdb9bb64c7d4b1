// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/worker_devices.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "runtime/base/size.hpp"
#include "runtime/device/card.hpp"
#include "runtime/training/placement.hpp"

namespace lockstep {
namespace {

std::string with_index(const std::string& name) {
  return name == kHostDevice || name.find(':') != std::string::npos ? name : name + ":0";
}

std::string type_of(const std::string& name) {
  return name.substr(0, name.find(':'));
}

}  // namespace

std::string device_of_worker(const Config& config, int worker) {
  const std::vector<std::string>& devices = config.workers.devices;
  return with_index(devices[static_cast<std::size_t>(worker) % devices.size()]);
}

std::vector<std::string> devices_of(const Config& config) {
  std::vector<std::string> names;
  for (const std::string& device : config.workers.devices)
    if (const std::string name = with_index(device); std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(name);
  return names;
}

std::string kind_here(const std::string& name) {
  try {
    return kind_of(device_of(name, {}));
  } catch (const std::exception&) {  // not here, or no name of a device at all
    return "";
  }
}

ProfileEnvironment devices_here(const Config& config) {
  ProfileEnvironment kinds;
  for (const std::string& name : devices_of(config))
    if (const std::string kind = name == kHostDevice ? "" : kind_here(name); !kind.empty())
      kinds.emplace_back(name, kind);
  return kinds;
}

std::string kind_of_device(const Profile& profile, std::size_t rank, const std::string& name) {
  if (!profile.workers.empty()) {
    const ProfiledWorker& there = profile.workers[rank < profile.workers.size() ? rank : 0];
    if (!there.kind.empty()) return there.kind;
    for (const auto& [device, kind] : there.devices)
      if (device == name) return kind;
  }
  if (name == kHostDevice) return kHostKind;
  if (std::string here = kind_here(name); !here.empty()) return here;
  std::set<std::string> known;
  for (const LayerProfile& layer : profile.layers)
    if (matches_kind(type_of(name), layer.kind)) known.insert(layer.kind);
  return known.size() == 1 ? *known.begin() : type_of(name);
}

std::string devices_to_set(const Config& config, const std::vector<PlannedWorker>& workers) {
  bool there = true;
  std::vector<std::string> names;
  for (const PlannedWorker& worker : workers) {
    there = there && worker.place.device == device_of_worker(config, static_cast<int>(names.size()));
    names.push_back(worker.place.device);
  }
  return there ? "" : "[" + join(names) + "]";
}

PlannedWorker planned_worker(const Profile& profile, const Config& config, int index, std::size_t rank) {
  PlannedWorker worker;
  worker.place.device = device_of_worker(config, index);
  worker.kind = kind_of_device(profile, rank, worker.place.device);
  if (rank >= profile.workers.size()) return worker;
  const ProfiledWorker& there = profile.workers[rank];
  worker.place.host = there.place.host;
  if (there.devices.empty() || worker.kind == kHostKind) worker.speed = there.speed;  // else that of the rank's host
  return worker;
}

std::string limit_by_devices(std::vector<PlannedWorker>& workers, const Profile& profile) {
  constexpr double kShare = 0.9;
  std::string said;
  for (std::size_t i = 0; i < workers.size(); ++i) {
    PlannedWorker& worker = workers[i];
    const double bytes = memory_bytes_of(profile, worker.kind);
    if (std::isfinite(worker.limit_bytes) || bytes <= 0) continue;
    const auto sharing = std::count_if(workers.begin(), workers.end(), [&](const PlannedWorker& other) {
      return other.place.shares_memory_with(worker.place);
    });
    worker.limit_bytes = std::floor(kShare * bytes / static_cast<double>(sharing));
    said +=
        concat(said.empty() ? "" : ", ", "worker ", i, " on ", worker.place.device, " ", size_text(worker.limit_bytes));
  }
  if (said.empty()) return "";
  return concat("no limit of memory is given: taken is nine tenths of each device's, shared by its workers (", said,
                "); --memory or workers.memory_limit says another");
}

}  // namespace lockstep
