// SPDX-License-Identifier: Apache-2.0
//
// Training a model from C++: declare a list of layers, make a Trainer, fit.
//
//   lockstep::Model model{"tiny", {{"fc", std::make_shared<lockstep::Linear>(8, 8)}, ...}};
//   lockstep::Config config;  // or read_config(load_config_file("x.yaml"))
//   lockstep::Trainer trainer(model, data, config);
//   trainer.fit();
//
// The constructor describes and checks everything (model, data, cuts, placement, schedule) and builds nothing; what a
// user can have got wrong is found there.
#pragma once

#include <memory>

#include "runtime/config/config.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/engine/job.hpp"
#include "runtime/training/trainer_state.hpp"

namespace lockstep {

class Publisher;
struct ScheduleChoice;

/// The processes of the job (Process::ranks() in runtime/session/process.hpp). Default: this one alone.
struct Ranks {
  RankId here = RankId(0);
  int count = 1;
  RemoteLinks* remote = nullptr;
  int workers_before = 0;  ///< workers of lower ranks that may run on the same CPUs of the same host: for workers.bind
};

struct FitOptions {
  Observer* observer = nullptr;                  ///< told of every result, on a worker's thread
  const std::atomic<bool>* signalled = nullptr;  ///< raised from outside: finish the step and leave
  /// Raised from outside, in the process of row 0: leave at the next checkpoint (StopReason::replan), to go on from it
  /// with other cuts.
  const std::atomic<bool>* replan = nullptr;
  bool record_hashes = false;
  std::string checkpoints = {};      ///< the folder where checkpoints go, as the config says; empty: none is written
  RecordRange record = {};           ///< steps whose timeline is recorded: JobOutcome::recorded
  std::string recorder_folder = {};  ///< where each worker's flight recorder goes; empty: nowhere. It exists
  Log log = {};
};

class Trainer {
 public:
  /// Throws UserError (ConfigError, ModelError, DataError, ScheduleError).
  Trainer(Model model, DataSplits data, Config config, Ranks ranks);
  /// Of this process alone. Throws UserError when a launcher started several, of which each would train by itself.
  Trainer(Model model, DataSplits data, Config config);
  ~Trainer();

  /// Goes on from a checkpoint instead of from the beginning; before fit(). Nothing is read but headers. Throws
  /// CheckpointError when it is damaged or of another model, ConfigError when the config would compute other numbers,
  /// or the data is other data, and `rules` do not say that this is meant.
  void resume(const std::string& checkpoint, const ResumeRules& rules = {});
  /// What the rules let through, and what else is to be said of it.
  const ResumeFindings& resumption() const { return resumption_; }
  /// Where training starts: step 0, or that of the checkpoint.
  const TrainerState& start() const { return start_; }
  /// As the checkpoint has it, with the machine that wrote it; that of step 0 without one.
  const TrainerState& resumed_state() const { return resumed_state_; }

  /// Trains to train.steps or until something stops it. Blocking; once. With schedule: auto and no costs, a few steps
  /// are trained first and thrown away: their costs decide the order of work, on every rank the same.
  JobOutcome fit(const FitOptions& options = {});
  /// Evaluates the checkpoint that was resumed, trains nothing. Instead of fit().
  JobOutcome evaluate(const FitOptions& options);

  const Config& config() const { return config_; }
  const Model& model() const { return model_; }
  const ModelGraph& graph() const { return graph_; }
  const Losses& losses() const { return losses_; }
  const Partition& partition() const { return partition_; }
  const Layout& layout() const { return layout_; }
  const DataSplits& data() const { return data_; }
  int micro_batches() const { return config_.train.micro_batches; }
  Programs& programs() const { return *programs_; }
  /// What the user should know before it starts, such as a schedule file that changes bits.
  const std::vector<std::string>& warnings() const { return warnings_; }
  /// The links to the other ranks, which need to know the layout: before fit().
  void connect(const Ranks& ranks) { ranks_ = ranks; }
  // For tests of the verifier: plant a fault before fit().
  void replace_programs(std::unique_ptr<Programs> programs) { programs_ = std::move(programs); }
  void replace_loss(std::unique_ptr<Loss> loss) { losses_.at(0) = std::move(loss); }
  void wrap_channels(WrapChannel wrap) { wrap_channel_ = std::move(wrap); }
  /// All that the other ranks must agree on before they start, as text: config, what the bits depend on, the library
  /// itself, cuts, layout and the training program.
  std::string agreement() const;

 private:
  std::vector<Cpus> bound_cpus(const Log& log) const;
  void take(ScheduleChoice choice);
  void measure(const FitOptions& options);
  void place(int workers);
  void check_programs() const;
  void check_evaluation() const;
  void check_slices() const;
  TrainerState fresh_state() const;
  /// Whether this process has the row that reads the data.
  bool feeds() const { return layout_.rank_of_row.front() == layout_.here; }
  std::unique_ptr<Publisher> make_publisher(const FitOptions& options) const;

  Config config_;
  Model model_;
  DataSplits data_;
  Ranks ranks_;
  Losses losses_;  // by head
  ModelGraph graph_;
  Partition partition_;
  Layout layout_;
  std::vector<at::Device> devices_;  // by row
  std::unique_ptr<Programs> programs_;
  std::vector<bool> recompute_;  // by layer
  bool measures_ = false;        // schedule: auto without costs: the first steps of fit() decide it
  std::vector<std::string> warnings_;
  std::string resumed_from_;  // empty: the beginning
  TrainerState start_, resumed_state_;
  ResumeFindings resumption_;
  WrapChannel wrap_channel_;
};

}  // namespace lockstep
