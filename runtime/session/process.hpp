// SPDX-License-Identifier: Apache-2.0
//
// The ranks of a job, and the main of a program that is one of them:
//
//   int main() {
//     return lockstep::run_ranks([](lockstep::Process& process) { ...; return 0; });
//   }
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/console.hpp"
#include "runtime/engine/remote_links.hpp"
#include "runtime/host/stop_signals.hpp"
#include "runtime/training/trainer.hpp"

namespace lockstep {

/// How long ranks wait for one that plans, measures or reads a checkpoint.
inline constexpr std::chrono::hours kLongPatience{24};

/// What `lockstep doctor` says of MPI.
struct MpiFacts {
  std::string library;       ///< empty: there is none, and `problem` says why
  std::string thread_level;  ///< "MPI_THREAD_MULTIPLE"
  std::string problem;
};

/// The ranks of this job: MPI when a launcher started us, else this process alone. At most one in a program.
class Process {
 public:
  /// `always_mpi`: start MPI also without a launcher.
  explicit Process(bool always_mpi = false);
  ~Process();
  bool is_root() const { return ranks_.here.value() == 0; }
  Ranks ranks() const { return ranks_; }
  int rank() const { return ranks_.here.value(); }
  int size() const { return ranks_.count; }

  /// UserError on all ranks when they do not agree on config, build, processor, cuts and program. Collective.
  void compare(const Trainer& trainer);
  /// Gives the trainer its links to the other ranks; call once, before fit().
  void connect(Trainer& trainer);
  /// Links to the other ranks for anything but training; null without any. One at a time.
  std::unique_ptr<RemoteLinks> make_links(int workers, bool device_buffers = false);
  /// The value of every rank, in rank order.
  std::vector<std::string> all_gather(const std::string& value,
                                      std::chrono::milliseconds timeout = std::chrono::minutes(5));
  /// Runs `work` on every rank. When it throws a UserError on any of them, rank 0 prints the first one, and every rank
  /// throws AlreadyReported with the same exit code: nobody goes on alone. `timeout`: how much longer one rank may work
  /// than another.
  void together(const std::function<void()>& work, std::chrono::milliseconds timeout = std::chrono::minutes(5));
  const std::string& host() const { return host_; }
  /// What is printed on standard error while a line may move there, by all ranks.
  const std::shared_ptr<Console>& console() const { return console_; }
  /// A log whose info lines show on the console of one rank; with a file, they go there too.
  Log log(const std::string& file = "") const;
  static bool has_mpi();   ///< built with it
  static bool launched();  ///< started by mpirun or srun
  MpiFacts mpi_facts() const;
  /// From here on a failure is written down there too, and only one rank speaks and aborts.
  void set_run_folder(const std::string& path) { run_folder_ = path; }
  /// Something failed here: prints it and ends all ranks at once with its exit code (1 when it has none). When several
  /// ranks fail at the same time one of them is elected, the others wait for its abort.
  [[noreturn]] void fail(const std::exception& error);
  /// From here on a signal to stop raises StopSignals::asked() and calls `announce`; a later one ends all ranks at
  /// once. Before, and in all other verbs, already the first one ends all ranks.
  void stop_when_asked(std::function<void(int)> announce);
  /// All ranks end here, with one code: waits for them, and leaves MPI. run_ranks() does it with what `work` returns.
  void finish(int exit_code);
  /// The run has ended: takes set_run_folder() and stop_when_asked() back.
  void end_run();

 private:
  void leave(int exit_code);

  struct Mpi;
  std::unique_ptr<Mpi> mpi_;
  Ranks ranks_;
  std::string host_, run_folder_;
  std::unique_ptr<StopSignals> signals_;  // gone before MPI is
  std::shared_ptr<Console> console_ = std::make_shared<Console>();

  void leave_by_signals();
  /// From any thread.
  [[noreturn]] void end_all(int code);
};

/// Leave with this code: the message has been printed.
struct AlreadyReported {
  int exit_code = 0;
};

/// Runs `work` on every rank, and gives the exit code for main. An exception ends all ranks: the message on standard
/// error, then the abort (Process::fail).
int run_ranks(const std::function<int(Process&)>& work);

}  // namespace lockstep
