// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints of a running job: every worker writes its own shard, row 0 publishes.
//
//   header of step k: save ---> every row, after its optimizer step k: ShardKeeper::save
//                                 copy | writer thread: step-k.part/model-, optimizer-0000i-of-0000n, fsync
//   row 0: Publisher   <--- shard reports, with the results of whatever program run follows
//     all rows have reported, no value up to step k was not finite, tied copies agree:
//                                 index, trainer.json, manifest.json, fsync, rename (a thread of its own), prune
//
// Nothing here makes training wait, but for the copy and for a save before it that is not finished.
#pragma once

#include <future>
#include <memory>
#include <optional>
#include <set>

#include "runtime/base/log.hpp"
#include "runtime/checkpoint/store.hpp"
#include "runtime/engine/director.hpp"
#include "runtime/engine/keeper.hpp"
#include "runtime/training/trainer_state.hpp"

namespace lockstep {

struct ShardOptions {
  std::string checkpoints;          ///< folder; empty: nothing is ever saved
  std::string resume_from;          ///< a checkpoint; empty: start from the beginning
  std::string background = "auto";  ///< as CheckpointConfig
  int row = 0, rows = 1;
  int workers_here = 1;  ///< in this process: they all copy at the same time
  Log log = {};          ///< gets the times of copying, writing and reading (debug)
};

class ShardKeeper : public StateKeeper {
 public:
  explicit ShardKeeper(ShardOptions options) : options_(std::move(options)) {}
  bool resumes() const override { return !options_.resume_from.empty(); }
  void restore(const WorkerState& state) override;
  void save(std::int64_t step, const WorkerState& state) override;
  void drain() override;
  std::vector<std::string> take_reports() override;

 private:
  struct Shard;
  bool copies(const Shard& shard) const;
  void log_time(std::int64_t step, std::int64_t bytes, const char* what, double start_us) const;
  std::string write(const Shard& shard) const;

  ShardOptions options_;
  std::future<std::string> writing_;
  std::vector<std::string> reports_;
};

struct PublisherOptions {
  std::string checkpoints;
  int rows = 1;
  int keep = 3;
  bool keep_best = false;
  std::string hub_config;  ///< Model::hub_config
  TrainerState state;      ///< where the job starts: step 0, or what it resumes from
  Log log;
};

/// On the thread of row 0.
class Publisher {
 public:
  /// Clears what an earlier job left unfinished.
  explicit Publisher(PublisherOptions options);

  /// The rows have been told to save after `step`, when `position` samples are consumed.
  void request(std::int64_t step, std::int64_t position);
  void report(const std::vector<std::string>& shards);
  void finished(const StepResult& result);
  /// Publishes what is complete. Throws what went wrong with an earlier publication.
  void advance();
  /// Whether reports are still missing; waits for a publication that is under way.
  bool is_busy();
  /// Whether a save now would be published.
  bool is_sound() const { return !not_finite_; }
  /// Of the last save that was requested, or of the checkpoint that the job started from.
  std::int64_t last_step() const { return last_step_; }

 private:
  struct Pending {
    TrainerState state;
    bool has_result = false;
    std::vector<ShardReport> reports;
  };
  void evaluated(std::int64_t step, double loss);
  void publish(Pending pending);
  void wait();
  std::string config_json() const;

  PublisherOptions options_;
  std::int64_t last_step_ = 0;
  std::uint64_t losses_ = 0;
  std::optional<BestEvaluation> best_;
  std::optional<std::int64_t> not_finite_;  ///< the first such step
  StepResult evaluation_;                   // sums over the batches of the evaluation that is under way
  std::map<std::int64_t, Pending> pending_;
  std::set<std::int64_t> published_;
  std::future<void> publication_;
};

}  // namespace lockstep
