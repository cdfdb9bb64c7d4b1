// SPDX-License-Identifier: Apache-2.0
//
// The MPI job that this process is a rank of: MPI_Init to MPI_Finalize, and the few collectives that start and end a
// run.
//
//   if (launched()) { MpiWorld world; MpiEndpoint endpoint(world); ... }    // in main, at most once
//
// What it is not: it moves no tensors (MpiEndpoint does), and nothing in a training step calls it.
//
// Nobody spins: collectives are non-blocking MPI calls in one wait loop that sleeps (Backoff). Any thread may call, one
// collective at a time, the same ones in the same order on every rank. Errors do not abort inside MPI: they come as
// CommError; from then on MPI_Finalize is skipped, because it could hang on what is still in flight.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace lockstep {

class MpiWorld {
 public:
  static constexpr std::chrono::milliseconds kTimeout{300'000};

  /// UserError when the launcher started several tasks and MPI sees a world of one (srun without a matching PMI starts
  /// N singletons that each believe to be rank 0 of 1). The constructor calls it.
  static void check_launcher(int world_size);

  /// MPI_Init. Throws CommError when MPI gives less than MPI_THREAD_SERIALIZED, UserError as check_launcher.
  MpiWorld();
  /// leave(), unless the stack is unwinding, an error has been seen or leave() has been called. Does not throw.
  ~MpiWorld();
  MpiWorld(const MpiWorld&) = delete;
  MpiWorld& operator=(const MpiWorld&) = delete;

  int rank() const;
  int size() const;
  const std::string& host() const;
  int host_ranks() const;                   ///< ranks on this host, this one included
  const std::string& library() const;       ///< which MPI, on one line
  const std::string& thread_level() const;  ///< "MPI_THREAD_MULTIPLE"

  /// The value of every rank, in rank order. For comparing hashes and counting hosts at start-up.
  /// Throws CommError; WaitTimeout when a rank does not come.
  std::vector<std::string> all_gather(const std::string& value, std::chrono::milliseconds timeout = kTimeout);
  /// Waits for every rank. Throws as all_gather.
  void barrier(std::chrono::milliseconds timeout = kTimeout);

  /// Waits for every rank, then MPI_Finalize. No MPI after it. Does nothing after an error.
  /// With an exit code, where MPI_Finalize may never end (MPICH before 4.2, messages over TCP), the process ends here
  /// with that code instead: the launcher itself lets all ranks go together.
  void leave(std::optional<int> exit_code = std::nullopt);

  /// Ends all ranks with this exit code, from any thread, whatever the others do.
  [[noreturn]] void abort(int code);

  /// Whether an MPI error or an abandoned transfer has made MPI_Finalize unsafe.
  bool failed() const;

  struct State;  ///< mpi_call.hpp, internal
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
  bool left_ = false;
};

}  // namespace lockstep
