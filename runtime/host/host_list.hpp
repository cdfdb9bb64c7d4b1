// SPDX-License-Identifier: Apache-2.0
//
// The hosts of a job, and how many ranks each may have: as `--hosts` and `--hostfile` of `lockstep launch` name them,
// and as MPICH's and Open MPI's mpiexec take them (`-host a:4,b:4`: a is filled before b).
#pragma once

#include <string>
#include <vector>

namespace lockstep {

struct HostSlots {
  std::string name;
  int slots = 1;
  bool operator==(const HostSlots&) const = default;
};

using HostList = std::vector<HostSlots>;

/// "a:4,b" is four ranks on a and one on b. Throws UserError, which begins with `flag`.
HostList read_hosts(const std::string& text, const std::string& flag = "--hosts");

/// A line for each host, `node1:4` as MPICH writes it or `node1 slots=4` as Open MPI does; # begins a comment. Throws
/// UserError with file and line.
HostList read_hostfile(const std::string& path);

int slots_of(const HostList& hosts);

/// "a:4,b:1", without hosts that have no slots.
std::string text_of(const HostList& hosts);

/// The argument of a launcher that names hosts ("-f"); empty: none does. Launch passes hosts on itself.
std::string host_flag_of(const std::vector<std::string>& launcher);

}  // namespace lockstep
