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

#include "runtime/training/answers.hpp"
#include "runtime/training/start.hpp"
#include "runtime/training/training_director.hpp"
#include "runtime/training/training_run.hpp"

namespace lockstep {

class Trainer {
 public:
  /// Throws UserError (ConfigError, ModelError, DataError, ScheduleError).
  Trainer(Model model, DataSplits data, Config config, const Ranks& ranks);
  /// Of this process alone. Throws UserError when a launcher started several, of which each would train by itself.
  Trainer(Model model, DataSplits data, Config config);
  explicit Trainer(Assembly assembly);

  /// Looks for the weights of train.init_from, where there are any; before fit(), which does it else. Throws as
  /// initial_weights() in initial_weights.hpp.
  void find_initial_weights();
  /// What they start and what not; null: nothing is started by them.
  const InitialWeights* initial_weights() const { return start_.initial.get(); }
  /// Goes on from a checkpoint instead of from the beginning; before fit(). See resume() in start.hpp.
  void resume(const std::string& checkpoint, const ResumeRules& rules = {});
  /// What the rules let through, and what else is to be said of it.
  const ResumeFindings& resumption() const { return start_.findings; }
  /// Where training starts: step 0, or that of the checkpoint.
  const TrainerState& start() const { return start_.state; }
  /// As the checkpoint has it, with the machine that wrote it; that of step 0 without one.
  const TrainerState& resumed_state() const { return start_.saved; }

  /// Trains to train.steps or until something stops it. Blocking; once. With schedule: auto and no costs, a few steps
  /// are trained first and thrown away: their costs decide the order of work, on every rank the same.
  JobOutcome fit(const RunOptions& options = {}, const TrainingOrders& orders = {});
  /// Evaluates the checkpoint that was resumed, trains nothing. Instead of fit(). Throws UserError without an
  /// evaluation set.
  JobOutcome evaluate(const RunOptions& options = {});

  /// Of data with inputs (DataSplits::inputs): how they will be answered, by head. See with_answers().
  std::vector<AnswerForm> prepare_answers(const AnswerOptions& options,
                                          const Table<ActivationKind>& activations = activation_kinds());
  /// Behind it, and instead of fit(): answers by the checkpoint that was resumed, in order, `take` on the thread of row
  /// 0. `more`: AnswerDirector's.
  JobOutcome answer(const TakeAnswers& take, const RunOptions& options = {}, const WaitForMore& more = {});

  const Assembly& assembly() const { return assembly_; }
  const Config& config() const { return assembly_.config; }
  const Model& model() const { return assembly_.model; }
  const ModelGraph& graph() const { return assembly_.graph; }
  const Losses& losses() const { return assembly_.losses; }
  const Partition& partition() const { return assembly_.partition; }
  const Layout& layout() const { return assembly_.layout; }
  const DataSplits& data() const { return assembly_.data; }
  int micro_batches() const { return assembly_.config.train.micro_batches; }
  Programs& programs() const { return *assembly_.programs; }
  const std::vector<std::string>& warnings() const { return assembly_.warnings; }
  /// The links to the other ranks, which need to know the layout: before fit().
  void connect(const Ranks& ranks) { assembly_.ranks = ranks; }
  /// agreement() of the assembly, and where it starts.
  std::string agreement() const;

 private:
  void measure(const RunOptions& options, const TrainingOrders& orders);

  Assembly assembly_;
  Start start_;
};

}  // namespace lockstep
