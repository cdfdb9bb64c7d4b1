// SPDX-License-Identifier: Apache-2.0
//
// Internal to runtime/comm/mpi: tells the other ranks how the workers here are doing, and hears of theirs.
//
// Every rank sends its whole board (24 bytes a row) to each rank that it shares an edge with, once per interval, on a
// tag of its own; a board that arrives is merged, newer news win. So news of a row reaches everybody within a few
// intervals, on any number of hosts, and who waits can follow a chain of waits over ranks that are not neighbours. One
// small message per neighbour and interval is all it costs.
//
// A thread of its own: it must go on while every worker computes, and while every worker waits. A rank that is stopped
// or dead sends nothing; one that hangs sends the same numbers. Either is what the watchdog wants to know.
#pragma once

#include <mpi.h>

#include <atomic>
#include <condition_variable>
#include <thread>
#include <vector>

#include "runtime/comm/mpi/mpi_world.hpp"
#include "runtime/observe/pulse.hpp"

namespace lockstep::mpi {

class MpiHeartbeats : public Heartbeats {
 public:
  /// `neighbours`: the same relation on all ranks (if a is one of b's, b is one of a's). World and board outlive it.
  MpiHeartbeats(MpiWorld& world, PulseBoard& board, const std::vector<int>& neighbours,
                std::chrono::milliseconds interval);
  /// Without finish(), after a failure: what is in flight is leaked.
  ~MpiHeartbeats() override;
  void finish() override;

 private:
  struct Row {
    std::uint64_t beats;
    std::int32_t waits_for, layer;
    Activity activity;
    std::uint32_t goodbye;  ///< the sender sends nothing after this
  };
  struct Neighbour {
    int rank = 0;
    MPI_Request receive = MPI_REQUEST_NULL, send = MPI_REQUEST_NULL;
    std::vector<Row> received, sent;
    bool said_goodbye = false, heard_goodbye = false;
  };

  void run(std::chrono::milliseconds interval);
  void exchange();
  void hear(Neighbour& neighbour);
  void tell(Neighbour& neighbour);
  bool is_over() const;

  MpiWorld::State& world_;
  PulseBoard& board_;
  std::vector<std::unique_ptr<Neighbour>> neighbours_;  // MPI holds pointers into them
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> finishing_{false}, abandoned_{false};
  std::thread thread_;
};

}  // namespace lockstep::mpi
