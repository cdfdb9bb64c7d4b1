// SPDX-License-Identifier: Apache-2.0
//
// What tests under mpirun get from mpi_test_main.cpp. Every rank runs the same test cases in the same order.
#pragma once

#include "runtime/comm/mpi/mpi_world.hpp"

namespace lockstep::test {

/// The world of this test binary: made in main, left after the last test.
MpiWorld& world();

}  // namespace lockstep::test
