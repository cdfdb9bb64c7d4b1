// SPDX-License-Identifier: Apache-2.0
//
// Internal to runtime/comm/mpi: every MPI call is wrapped by check(), so that an error names what was being done.
#pragma once

#include <mpi.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "runtime/comm/mpi/mpi_world.hpp"

namespace lockstep::mpi {

/// What an MPI call was about. -1: does not apply.
struct Call {
  const char* operation;
  int peer = -1;
  int tag = -1;
  std::int64_t bytes = -1;
};

/// "MPI_Irecv of 4096 bytes from/to rank 1, tag 6: MPI_ERR_TRUNCATE (15): Message truncated ..."
std::string explain(int code, const Call& call);

/// Throws CommError unless `code` is MPI_SUCCESS.
void check(int code, const Call& call);

/// The count argument of a call on MPI_BYTE. Larger ones are cut into blocks before they come here.
int to_count(std::int64_t bytes);

}  // namespace lockstep::mpi

namespace lockstep {

/// Shared by the world and its endpoints. `mutex` is held around every MPI call: MPI_THREAD_SERIALIZED is enough.
struct MpiWorld::State {
  std::mutex mutex;
  MPI_Comm comm = MPI_COMM_NULL;  ///< our own copy of COMM_WORLD
  int rank = 0;
  int size = 1;
  int tag_limit = 32767;  ///< largest legal tag (MPI_TAG_UB)
  std::string host;
  int host_ranks = 1;
  std::string library, thread_level;
  std::atomic<bool> failed{false};  ///< MPI_Finalize is no longer safe

  /// mpi::check, and remembers that there was an error.
  void require(int code, const mpi::Call& call);
  /// Polls one request, sleeping in between. Throws CommError, WaitTimeout.
  void wait(MPI_Request request, const char* operation, std::chrono::milliseconds timeout);
};

}  // namespace lockstep
