// SPDX-License-Identifier: Apache-2.0
//
// What the verbs of the `lockstep` command share. Each verb is one file: add_VERB() declares its flags and sets
// `command`, which main calls after parsing and whose result is the exit code.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "partitioner/plan_file.hpp"
#include "runtime/base/console.hpp"
#include "runtime/config/config.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/engine/job.hpp"
#include "runtime/training/environment.hpp"
#include "runtime/training/trainer.hpp"
#include "tools/simulate.hpp"
#include "tools/stop_signals.hpp"

namespace CLI {
class App;
}

namespace lockstep {

/// What `lockstep doctor` says of MPI.
struct MpiFacts {
  std::string library;       ///< empty: there is none, and `problem` says why
  std::string thread_level;  ///< "MPI_THREAD_MULTIPLE"
  std::string problem;
};

/// The ranks of this job: MPI when a launcher started us, else this process alone.
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
  std::unique_ptr<RemoteLinks> make_links(int workers);
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

 private:
  void leave();

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

/// A config as a verb reads it.
struct LoadedConfig {
  Config config;
  std::optional<PlanFile> plan;    ///< in it already. Without `predicted` when that is of something else
  std::vector<std::string> notes;  ///< what the user should know of the two
  /// Of an evaluation: the training set of its checkpoint, so that it need not be there.
  std::optional<TrainedOn> trained = {};
};

/// A config file, the plan that is laid over it, and overrides.
struct ConfigSource {
  std::string path, plan;
  std::vector<std::string> overrides;
  void add_flags(CLI::App& verb);
  void add_plan_flag(CLI::App& verb);
  /// Whether the config leaves the number of micro-batches to a plan.
  bool leaves_micro_batches() const;
  /// Throws ConfigError; also when the plan is of another model, batch or number of micro-batches. `micro_batches`:
  /// what `train.micro_batches: auto` counts as without a plan, at most the batch; 0: it is refused.
  LoadedConfig load(int micro_batches = 0) const;
};

/// Config, model, data, checked against each other. Nothing is built. `trained`: DataContext's.
std::unique_ptr<Trainer> make_trainer(const Config& config, const Ranks& ranks,
                                      const std::optional<TrainedOn>& trained = {});

/// Stages, layers, parameters, ranks: a table that fits the terminal.
std::string stage_table(const Trainer& trainer);

void add_train(CLI::App& app, std::function<int()>& command);
void add_verify(CLI::App& app, std::function<int()>& command);
void add_checkpoint(CLI::App& app, std::function<int()>& command);
void add_eval(CLI::App& app, std::function<int()>& command);
void add_list(CLI::App& app, std::function<int()>& command);
void add_launch(CLI::App& app, std::function<int()>& command);
void add_why(CLI::App& app, std::function<int()>& command);
void add_doctor(CLI::App& app, std::function<int()>& command);
void add_profile(CLI::App& app, std::function<int()>& command);
void add_plan(CLI::App& app, std::function<int()>& command);

/// For `lockstep simulate --plan`: with the config that the plan names. Throws UserError, ConfigError.
SimulateSubject subject_of_plan(const std::string& path);

}  // namespace lockstep
