// SPDX-License-Identifier: Apache-2.0
//
// On what the workers of a config compute, and what a profile knows of that. A worker's device is what the config says
// (worker w is on workers.devices[w mod length]); what kind of device that is says the profile, so that a plan can be
// made where no such device is.
#pragma once

#include <string>
#include <vector>

#include "partitioner/profile_file.hpp"
#include "runtime/base/ids.hpp"
#include "runtime/config/config.hpp"

namespace lockstep {

/// "cpu", "cuda:0": "cuda" has its index.
std::string device_of_worker(const Config& config, int worker);

/// The names of all devices that workers may be on, each once.
std::vector<std::string> devices_of(const Config& config);

/// The kind of a device of a rank (its place in Profile::workers): by hand; else as it was measured there; else that of
/// this machine's device; else the only one of its type that the profile has costs of; else the type alone.
std::string kind_of_device(const Profile& profile, std::size_t rank, const std::string& name);

/// The kind of a device of this machine; empty where it is not here.
std::string kind_here(const std::string& name);

/// What workers.devices has to be for each of the workers to be on its device, "[cuda:0, cpu]"; empty: the config has
/// them there.
std::string devices_to_set(const Config& config, const std::vector<PlannedWorker>& workers);

/// The kinds of the devices that the config names, of those that this machine has and that are not the host, by name:
/// for foreign_environment().
ProfileEnvironment devices_here(const Config& config);

/// Device, kind and speed of worker `index`, which is on a rank of the profile; no limit.
PlannedWorker planned_worker(const Profile& profile, const Config& config, int index, std::size_t rank);

/// Workers without a limit on devices whose memory the profile knows share nine tenths of that; the rest is for the
/// driver, and for the gaps that an allocator leaves. Says so; empty: nobody got one.
std::string limit_by_devices(std::vector<PlannedWorker>& workers, const Profile& profile);

}  // namespace lockstep
