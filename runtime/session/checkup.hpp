// SPDX-License-Identifier: Apache-2.0
//
// What this machine gives to a job, and what to do where it gives too little: `lockstep doctor`. Alone or under mpirun,
// where every rank looks and one speaks.
#pragma once

#include <string>

namespace lockstep {

/// Prints what it finds. `run_folder`: where jobs will write. `probe`: only says how large the MPI world is. Starts
/// MPI. Returns the exit code: 1 when something is bad.
int check_up(const std::string& run_folder, bool probe);

}  // namespace lockstep
