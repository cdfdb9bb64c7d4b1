// SPDX-License-Identifier: Apache-2.0
//
// A worker executes its row of one Program after another: one loop, one switch. What it computes with are its Stages,
// what it trains its Weights; at row 0 a Ledger keeps what comes in from all rows.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "runtime/base/log.hpp"
#include "runtime/comm/channel.hpp"
#include "runtime/device/handover.hpp"
#include "runtime/engine/ledger.hpp"
#include "runtime/engine/row.hpp"
#include "runtime/engine/stages.hpp"
#include "runtime/observe/flight_recorder.hpp"
#include "runtime/observe/observer.hpp"
#include "runtime/observe/span_recorder.hpp"
#include "runtime/observe/watchdog.hpp"
#include "runtime/schedule/programs.hpp"

namespace lockstep {

/// What a worker is made of. References outlive the worker.
struct WorkerParts {
  int row = 0;
  const ModelGraph& graph;
  const Partition& partition;
  const Losses& losses;
  Programs& programs;
  StageOptions stage;
  DrawnParameters draws = {};     ///< the keeper fills in the others
  CommonPlace* common = nullptr;  ///< of the rows that have the same weights in the same memory; null: none has
  bool makes_common = false;      ///< is the first of them
  bool central = false;           ///< WeightOptions::central
  double clip_grad_norm = 0;      ///< 0: none
  MakeUpdater make_updater;
  int max_staleness = 0;           ///< with servers: JobSpec's
  std::int64_t steps_before = 0;   ///< the same
  std::vector<Channel*> channels;  ///< by edge; null where this row is not an end
  WaitLimits limits;
  Decider* decider = nullptr;    ///< row 0 only
  Feeder* feeder = nullptr;      ///< of the rows that have the first stage of a replica only
  Observer* observer = nullptr;  ///< one worker per process
  const std::atomic<bool>* signalled = nullptr;
  bool record_hashes = false;
  bool measure_products = false;  ///< for WorkerReport::product_rate
  std::int64_t dump_step = 0;     ///< which is handed to `take_dump`; 0: none
  TakeDump take_dump = {};
  std::unique_ptr<StateKeeper> keeper;  ///< null: nothing is saved or restored
  std::set<int> tellers = {};           ///< with servers, of who decides: Desk::Options'
  std::set<int> tells = {};             ///< with servers, of a worker: rows of servers that it tells results
  MemoryPool* pool = nullptr;           ///< of this worker; never null
  SpanRecorder* spans = nullptr;        ///< null: no timeline is recorded
  FlightRecorder* recorder = nullptr;   ///< never null
  Watchdog* watchdog = nullptr;         ///< the guard of `limits`; never null
  Log log;

  /// With servers: a table's squares are added up in one run where its norm is one of a whole mini-batch's gradient.
  bool has_whole_tables() const { return max_staleness == 0 && clip_grad_norm > 0; }
};

class Worker : public Row {
 public:
  explicit Worker(WorkerParts parts);

  /// Runs programs until the stop header. Throws what went wrong with step, micro-batch, action and stage in the
  /// message; JobStopped when another worker failed first.
  void run() override;
  void add_to(JobOutcome& outcome) const override;

 private:
  const DeviceStream& stream() const { return handover_.stream(); }
  void build();
  void run_program();
  void guarded(const Instruction& instruction);
  void execute(const Instruction& instruction);
  std::string where(const Instruction& instruction) const;

  void receive(const Instruction& instruction);
  void consume(const Edge& edge, Message message);
  void send(const Instruction& instruction);
  Tensors contents(const Edge& edge, int micro_batch);
  void finish_sends();

  void take_header(StepHeader header);
  bool recomputes(const Action& action);
  void collect_norm_parts();
  at::Tensor clip_coefficient() const;
  void update();
  void amend();
  void end_program();
  const RowResult& settled_last();
  void keep();
  void record_hash(int index, Hashed what, const at::Tensor& tensor);
  void record_gradients();
  void dump_gradients();
  at::Tensor values_of(const Slice& slice) const;
  void measure_changes();

  const FlowContents& flow(const Edge& edge) const { return parts_.partition.flows[edge.item]; }
  const Topology& topology() const { return parts_.partition.topology; }
  StageId in_this_replica(const Edge& edge) const {
    return topology().in_replica(StageId(edge.item), topology().replica_of(ids_.front()));
  }
  bool gathers_weights() const { return topology().replicas.shard_optimizer; }

  WorkerParts parts_;
  Handover handover_;
  Stopwatch watch_;
  std::vector<StageId> ids_;  // of the stages here
  double product_rate_ = 0;   // WorkerReport::product_rate
  std::optional<Weights> weights_;
  std::optional<Stages> stages_;
  std::optional<Ledger> ledger_;  // row 0 only

  const Program* program_ = nullptr;
  std::map<const Program*, std::vector<bool>> recomputed_;  // recomputed() of each program
  StepHeader header_;
  SquaredNorms squares_;                    // of this row
  at::Tensor norm_;                         // of all rows: double []
  std::unique_ptr<RowRun> current_, last_;  // this run and the one before, whose result travels now
  std::vector<ParameterHash> hashes_;
  StepDump dump_;
  Tensors before_;  // with StepHeader::norms: of each of weights_->summed(), the values that the step began with
};

}  // namespace lockstep
