// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi/mpi_call.hpp"

#include <limits>

#include "runtime/base/check.hpp"
#include "runtime/comm/channel.hpp"

namespace lockstep::mpi {

std::string explain(int code, const Call& call) {
  std::string message = call.operation;
  if (call.bytes >= 0) message += concat(" of ", call.bytes, " bytes");
  if (call.peer >= 0) message += concat(", peer rank ", call.peer);
  if (call.tag >= 0) message += concat(", tag ", call.tag);
  int error_class = MPI_ERR_UNKNOWN;
  MPI_Error_class(code, &error_class);
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  return concat(message, " failed: MPI error class ", error_class,
                error_class == MPI_ERR_TRUNCATE ? " (MPI_ERR_TRUNCATE)" : "", ": ", text);
}

void check(int code, const Call& call) {
  if (code != MPI_SUCCESS) throw CommError(explain(code, call));
}

int to_count(std::int64_t bytes) {
  LOCKSTEP_CHECK(bytes >= 0 && bytes <= std::numeric_limits<int>::max(), "a block of ", bytes, " bytes");
  return static_cast<int>(bytes);
}

}  // namespace lockstep::mpi
