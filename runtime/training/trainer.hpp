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

namespace lockstep {

/// The processes of the job. Default: this one alone.
struct Ranks {
  RankId here = RankId(0);
  int count = 1;
  RemoteLinks* remote = nullptr;
  int workers_before = 0;  ///< workers of lower ranks that may run on the same CPUs of the same host: for workers.bind
};

struct FitOptions {
  Observer* observer = nullptr;                  ///< told of every result, on a worker's thread
  const std::atomic<bool>* signalled = nullptr;  ///< raised from outside: finish the step and leave
  bool record_hashes = false;
  RecordRange record = {};  ///< steps whose timeline is recorded: JobOutcome::recorded
  Log log;
};

class Trainer {
 public:
  /// Throws UserError (ConfigError, ModelError, DataError, ScheduleError).
  Trainer(const Model& model, DataSplits data, Config config, Ranks ranks = {});
  ~Trainer();

  /// Trains to train.steps or until something stops it. Blocking; once.
  JobOutcome fit(const FitOptions& options = {});

  const Config& config() const { return config_; }
  const ModelGraph& graph() const { return graph_; }
  const Partition& partition() const { return partition_; }
  const Layout& layout() const { return layout_; }
  const DataSplits& data() const { return data_; }
  int micro_batches() const { return config_.train.micro_batches; }
  Programs& programs() { return *programs_; }
  /// The links to the other ranks, which need to know the layout: before fit().
  void connect(const Ranks& ranks) { ranks_ = ranks; }
  // For tests of the verifier: plant a fault before fit().
  void replace_programs(std::unique_ptr<Programs> programs) { programs_ = std::move(programs); }
  void replace_loss(std::unique_ptr<Loss> loss) { loss_ = std::move(loss); }
  /// All that the other ranks must agree on before they start, as text: config, what the bits depend on, the library
  /// itself, cuts, layout and the training program.
  std::string agreement() const;

 private:
  std::vector<int> layers_per_stage() const;
  std::vector<Cpus> bound_cpus(const Log& log) const;
  void check_schedule_name() const;
  void check_evaluation(const Model& model) const;

  Config config_;
  DataSplits data_;
  Ranks ranks_;
  std::unique_ptr<Loss> loss_;
  ModelGraph graph_;
  Partition partition_;
  Layout layout_;
  std::vector<at::Device> devices_;  // by row
  std::unique_ptr<Programs> programs_;
};

/// Rank of each worker: `per_rank` as in the config (empty: spread evenly, in order). ConfigError when a rank is left
/// without a worker or the numbers do not add up. `section`: the config's workers.
std::vector<RankId> spread_workers(int workers, int ranks, const std::vector<int>& per_rank, const Section& section);

}  // namespace lockstep
