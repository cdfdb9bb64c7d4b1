// SPDX-License-Identifier: Apache-2.0
//
// A worker with servers. It has the whole model as one stage, and no weights of its own: for each share of a mini-batch
// that the desk gives it, it reads them, computes what its replica's row of a program would, and hands in gradients.
// One thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine/served_weights.hpp"
#include "runtime/engine/worker.hpp"
#include "runtime/schedule/server_messages.hpp"

namespace lockstep {

/// Thrown out of Row::run() by a row without which the job goes on. The message says what went wrong.
class RowLeft : public Error {
 public:
  using Error::Error;
};

class ServedWorker : public Row {
 public:
  explicit ServedWorker(WorkerParts parts);
  /// Throws RowLeft when computing has failed and the others, in this process, go on.
  void run() override;
  void add_to(JobOutcome& outcome) const override;

 private:
  struct Server {
    EdgeId request = {}, reply = {};
    std::vector<Slice> parts = {};
    bool is_asked = false;  ///< its reply has not come
  };
  /// By parameter and holder: what is added up here.
  using Sums = std::vector<std::vector<std::vector<GroupSum>>>;

  void build();
  std::string where() const;
  bool by_shares() const { return parts_.max_staleness > 0; }

  // ---- messages ----
  template <typename Work>
  void timed(const Instruction& instruction, const Work& work);
  void count(const Tensors& tensors, std::int64_t WorkerReport::*bytes);
  void ask(Server& server, ServerRequest request, const Tensors& tensors = {});
  ServerReply answer(Server& server, Tensors* tensors = nullptr);
  std::vector<ServerReply> ask_all(const ServerRequest& request);
  bool next_order();
  void leave(const std::string& why);

  // ---- orders ----
  void work();
  std::vector<Action> actions() const;
  void compute(const std::vector<Action>& actions);
  void keep();
  void end_run();

  // ---- weights ----
  std::map<int, at::Tensor> rows_used(const std::vector<Action>& actions);
  void read_weights(const std::vector<Action>& actions);
  void put_values(const Server& server, const Tensors& values, bool all, std::map<int, Tensors>& of_tables);
  void hand_in();
  NormParts clip(Sums& sums) const;
  double clip_coefficient(const NormParts& norm) const;
  Tensors gradients_for(const Server& server, const Sums& sums);
  NormParts settle();

  WorkerParts parts_;
  DeviceStream stream_;
  Stopwatch watch_;
  const Program* program_;  // its edges
  StageId stage_;
  double product_rate_ = 0;
  std::vector<Server> servers_;
  std::optional<Weights> weights_;
  std::optional<Stages> stages_;
  std::vector<std::vector<Parameter*>> holders_;  // by parameter, in the order of its holders
  std::map<int, at::Tensor> rows_;                // by table: those that were read, on the host
  bool has_read_ = false;

  StepHeader header_;
  std::unique_ptr<RowRun> current_;
  std::string done_;                               // what came of the last order
  std::vector<WorkerReport> reports_;              // of servers, that the desk has not been told
  std::vector<std::string> saved_;                 // the same
  std::map<int, std::vector<StepResult>> untold_;  // by row of a server
};

}  // namespace lockstep
