// SPDX-License-Identifier: Apache-2.0
//
// What the environment says of the launcher (mpirun, srun) that started this process: all that is asked before MPI
// begins.
#pragma once

namespace lockstep {

/// Whether a launcher started this process.
bool launched();

/// How many processes it started; 1: none, or no launcher.
int launched_processes();

}  // namespace lockstep
