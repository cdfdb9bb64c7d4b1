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
// Nothing here makes training wait, but for the copy and for a save before it that is not finished. All files are
// written by threads of their own (save_task.hpp), also where the worker waits at once.
#pragma once

#include <memory>
#include <optional>
#include <set>

#include "runtime/base/log.hpp"
#include "runtime/checkpoint/store.hpp"
#include "runtime/device/stream.hpp"
#include "runtime/engine/director.hpp"
#include "runtime/engine/keeper.hpp"
#include "runtime/training/batch_reader.hpp"
#include "runtime/training/initial_weights.hpp"
#include "runtime/training/save_task.hpp"
#include "runtime/training/trainer_state.hpp"

namespace lockstep {

struct ShardOptions {
  std::string checkpoints;  ///< folder; empty: nothing is ever saved
  std::string resume_from;  ///< a checkpoint; empty: start from the beginning
  std::shared_ptr<const InitialWeights>
      initial;                      ///< what the beginning, or an adapter's base, is read from; may be null
  bool averaged = false;            ///< restores the averages of weights in their place
  bool optimizer_restarts = false;  ///< its rule's tensors are not restored: they stay as they begin
  Background background = Background::automatic;
  int row = 0, rows = 1;
  int workers_here = 1;                         ///< in this process: they all copy at the same time
  std::chrono::milliseconds patience{300'000};  ///< SaveTask's
  Log log = {};                                 ///< gets the times of copying, writing and reading (debug)
};

class ShardKeeper : public StateKeeper {
 public:
  explicit ShardKeeper(ShardOptions options) : options_(std::move(options)) {}
  bool restores() const override { return options_.initial || !options_.resume_from.empty(); }
  void restore(const WorkerState& state, const WaitLimits& limits) override;
  void save(std::int64_t step, const WorkerState& state, const WaitLimits& limits) override;
  void drain(const WaitLimits& limits) override;
  std::vector<std::string> take_reports() override;

 private:
  struct Shard;
  void start(const WorkerState& state, const FileProgress& progress) const;
  void check_base(const CheckpointStore& store, const HeldTensor& held) const;
  bool copies(const Shard& shard) const;
  void copy(Shard& shard, const WaitLimits& limits) const;
  static ShardReport write(const ShardOptions& options, const Shard& shard, const FileProgress& progress);

  ShardOptions options_;
  std::unique_ptr<SaveTask> writing_;  // null: everything is written
  struct Written {
    std::string report;
    c10::Device device;  // that it reads from
    StreamEvent read;    // it has
  };
  std::shared_ptr<Written> written_;  // once it is done
  /// base_text() by name, which who writes makes once.
  std::shared_ptr<std::map<std::string, std::string>> bases_ = std::make_shared<std::map<std::string, std::string>>();
  std::vector<std::string> reports_;
};

struct PublisherOptions {
  std::string checkpoints;
  std::string resume_from;  ///< what the workers are about to read; empty: nothing
  int rows = 1;
  int servers = 0;  ///< each has a part of StepResult::staleness
  int keep = 3;
  std::optional<Watched> best;                    ///< the checkpoint that is best by it is kept; none: none is
  bool stop_on_nan = true;                        ///< broken weights end the job, as values that are not finite do
  std::chrono::milliseconds patience{300'000};    ///< SaveTask's
  std::string hub_config;                         ///< Model::hub_config
  std::string torch_dtype;                        ///< of the weights: "float32"
  std::string adapter_config;                     ///< a checkpoint is an adapter, and this its description; empty: not
  std::map<std::string, std::string> companions;  ///< files by name, which every checkpoint has: companion_files()
  TrainerState state;  ///< where the job starts: step 0, or what it resumes from; with the record of the data
  Log log;
};

/// On the thread of row 0. `limits`: of waits for an earlier publication.
class Publisher {
 public:
  /// Clears what an earlier job left unfinished.
  explicit Publisher(PublisherOptions options);

  /// The rows have been told to save after `step`, when `position` samples are consumed.
  void request(std::int64_t step, std::int64_t position);
  void report(const std::vector<std::string>& shards);
  /// `plateau`, `stopping`: all that had been evaluated when this result came, as the best one that is saved with it.
  void finished(const StepResult& result, const PlateauState& plateau, const PlateauState& stopping,
                const WaitLimits& limits);
  /// Publishes what is complete. Throws what went wrong with an earlier publication, and Error when weights or
  /// optimizer state are not finite though every value of the step was.
  void advance(const WaitLimits& limits);
  /// Whether reports are still missing; waits for a publication that is under way.
  bool is_busy(const WaitLimits& limits);
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
  void evaluated(const StepResult& evaluation, const WaitLimits& limits);
  bool is_finite(std::int64_t step, const Pending& pending);
  void publish(Pending pending, const WaitLimits& limits);
  void start(SaveTask::Work work, const WaitLimits& limits);
  void wait(const WaitLimits& limits);
  std::string config_json() const;

  PublisherOptions options_;
  std::int64_t last_step_ = 0;
  std::uint64_t losses_ = 0;
  std::optional<BestEvaluation> best_;
  std::optional<std::int64_t> not_finite_;  ///< the first such step
  EvaluationSum evaluation_;
  std::map<std::int64_t, Pending> pending_;
  std::set<std::int64_t> published_;
  std::unique_ptr<SaveTask> publication_;  // null: nothing is under way
};

}  // namespace lockstep
