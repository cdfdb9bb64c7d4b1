// SPDX-License-Identifier: Apache-2.0
//
// A worker executes its row of one Program after another: one loop, one switch. It owns its stages' parameters.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "runtime/base/log.hpp"
#include "runtime/comm/channel.hpp"
#include "runtime/engine/director.hpp"
#include "runtime/engine/keeper.hpp"
#include "runtime/engine/memory.hpp"
#include "runtime/engine/stage.hpp"
#include "runtime/engine/updater.hpp"
#include "runtime/observe/flight_recorder.hpp"
#include "runtime/observe/span_recorder.hpp"
#include "runtime/observe/watchdog.hpp"
#include "runtime/schedule/programs.hpp"

namespace lockstep {

/// Of what a hash is. A buffer's index is that of ModelGraph::buffers.
enum class Hashed {
  gradient,  ///< summed over micro-batches and ties, before clipping
  value,     ///< as the update left it
  buffer,    ///< as the step left it
};

/// 64-bit hash of one parameter or buffer in one optimizer step, for `lockstep verify`.
struct ParameterHash {
  std::int64_t step = 0;
  int parameter = -1;
  Hashed what = Hashed::gradient;
  std::uint64_t hash = 0;
};

/// What a worker is made of. References outlive the worker.
struct WorkerParts {
  int row = 0;
  const ModelGraph& graph;
  const Partition& partition;
  const Losses& losses;
  Programs& programs;
  StageOptions stage;
  double clip_grad_norm = 0;  ///< 0: none
  std::unique_ptr<ParameterUpdater> updater;
  std::vector<Channel*> channels;  ///< by edge; null where this row is not an end
  WaitLimits limits;
  Director* director = nullptr;  ///< row 0 only
  Observer* observer = nullptr;  ///< one worker per process
  const std::atomic<bool>* signalled = nullptr;
  bool record_hashes = false;
  std::unique_ptr<StateKeeper> keeper;  ///< null: nothing is saved or restored
  MemoryPool* pool = nullptr;           ///< of this worker; never null
  SpanRecorder* spans = nullptr;        ///< null: no timeline is recorded
  FlightRecorder* recorder = nullptr;   ///< never null
  Watchdog* watchdog = nullptr;         ///< the guard of `limits`; never null
  Log log;
};

class Worker {
 public:
  explicit Worker(WorkerParts parts);
  ~Worker();

  /// Runs programs until the stop header. Throws what went wrong with step, micro-batch, action and stage in the
  /// message; JobStopped when another worker failed first.
  void run();

  /// This worker's parameters, one per stored tensor, in model order. Valid after run().
  const std::vector<Parameter*>& parameters() const { return owned_; }
  /// The buffers of this worker's layers, in model order.
  std::vector<const Buffer*> buffers() const;
  const std::vector<ParameterHash>& hashes() const { return hashes_; }

 private:
  /// The flow messages of the last compute may still have to be sent: kept until the next one begins.
  struct Sent {
    StageId stage;
    int micro_batch = -1;
    bool gradients = false;
    bool splits = false;            // an I, whose W is still to come
    std::int64_t bytes_before = 0;  // in flight when the compute began
  };

  void build_stages();
  void find_tie_holders();
  void run_program();
  void guarded(const Instruction& instruction);
  void finish_sends();
  void execute(const Instruction& instruction);
  void record(const Instruction& instruction, double start_us, double end_us);
  std::string where(const Instruction& instruction) const;

  void receive(const Instruction& instruction);
  void consume(const Edge& edge, int micro_batch, Message message);
  void send(const Instruction& instruction);
  Tensors contents(const Edge& edge, int micro_batch);

  void make_header();
  void take_header(StepHeader header);
  void compute(const Action& action);
  bool recomputes(const Action& action);
  std::int64_t gradient_bytes() const;
  std::int64_t in_flight_bytes() const;
  std::int64_t kept_bytes() const;
  void note_bytes(const Action& action, std::int64_t before);
  void load_data(int micro_batch);
  void deliver_locally(const Action& action);
  void release_sent();

  void sum_tie(int tie);
  void collect_norm_parts();
  void total_norm();
  double clip_coefficient() const;
  void update();
  std::vector<at::Tensor> updated_tensors();
  void apply_update(double coefficient);
  void amend();
  void forget_gradients();
  void end_step();
  void end_program();
  void merge_results();

  WorkerState state();
  void restore();
  void keep();

  Stage& stage(StageId id) { return *stages_.at(id); }
  const FlowContents& flow(StageId from, StageId to) const;
  bool is_mine(StageId id) const { return stages_.count(id) > 0; }

  WorkerParts parts_;
  ParameterStore store_;
  std::map<StageId, std::unique_ptr<Stage>> stages_;
  std::vector<Parameter*> all_;                          // every parameter of every layer here
  std::vector<Parameter*> owned_;                        // one per stored tensor: the first holder here
  std::vector<bool> in_norm_;                            // parallel to owned_: this row holds the model's first holder
  std::vector<std::vector<Parameter*>> tie_holders_;     // per tie and holder; null: on another row
  std::vector<std::map<int, at::Tensor>> tie_received_;  // per tie: holder -> gradient buffer

  std::vector<Parameter*> trained_;   // the trainable ones of owned_: what the optimizer updates
  std::vector<at::Tensor> snapshot_;  // post-validation: weights and optimizer state before the update

  const Program* program_ = nullptr;
  std::map<const Program*, std::vector<bool>> recomputed_;  // recomputed() of each program
  StepHeader header_;
  std::int64_t standing_bytes_ = 0;  // alive when the run began: parameters, optimizer state, row 0's batch
  Sent sent_;
  double norm_ = 0;
  RowResult current_, last_;  // of this run and of the one before, which travels now

  // Row 0 only.
  std::map<int, double> squares_;   // by parameter, of this run (clipping) or of the one before (no clipping)
  std::vector<RowResult> rows_;     // results of the run before, as they arrive
  std::vector<std::string> saved_;  // of all rows, for the director
  StepResult running_, previous_;
  double header_time_us_ = 0;
  std::vector<StepResult> finished_;

  std::vector<ParameterHash> hashes_;
};

}  // namespace lockstep
