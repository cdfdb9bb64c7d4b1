// SPDX-License-Identifier: Apache-2.0
//
// A rank's standard error is a pipe to the MPI launcher. Does that lead to a terminal in the end? No rank can see it
// through the pipe, so this looks for certain knowledge, and says no where there is none:
//
// - `lockstep launch` tells its ranks, by an environment variable;
// - under hydra's mpiexec, on its own host: the pipe is read by hydra's proxy, whose parent is mpiexec, whose standard
//   error is a terminal.
//
// And no where the launcher was told to write what it hears to files, or to put something before each line.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/console.hpp"

namespace lockstep {

/// Columns of the terminal of `lockstep launch`.
constexpr const char* kColumnsVariable = "LOCKSTEP_COLUMNS";

/// Of this process, a rank. The descriptor is opened for good.
Console::Terminal terminal_of_launcher();

/// Whether a launcher with these arguments passes on what ranks print, to its own standard error and as it is.
bool passes_on(const std::vector<std::string>& launcher);

}  // namespace lockstep
