// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace lockstep {

/// How many processes the launcher (mpirun, srun) started that started this one, as its environment says; 1: none did.
int launched_processes();

}  // namespace lockstep
