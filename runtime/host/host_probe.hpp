// SPDX-License-Identifier: Apache-2.0
//
// Which hosts still answer: a command that does nothing, started there by the launcher of the job, with its flags.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace lockstep {

/// What is wrong with a host, as a line for people: "'mpiexec -host b -n 1 true' was not done after 20 s". Empty: it
/// answers.
using HostProblem = std::string;

/// Of each host, all asked at once. An ssh to a host that is down may wait for long: who has not answered within
/// `limit` is killed, with all processes of its group. `give_up` is asked now and then; true: all are killed, and
/// nothing is known.
std::vector<HostProblem> probe_hosts(const std::vector<std::string>& launcher, const std::vector<std::string>& hosts,
                                     std::chrono::milliseconds limit, const std::function<bool()>& give_up);

}  // namespace lockstep
