// SPDX-License-Identifier: Apache-2.0
//
// A server of weights: answers what workers ask, in the order in which that comes and UpdateGate lets it through. It
// waits for all of them at once, by looking. The first one has the desk. One thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine/desk.hpp"
#include "runtime/engine/served_weights.hpp"
#include "runtime/engine/worker.hpp"
#include "runtime/schedule/update_gate.hpp"

namespace lockstep {

class Server : public Row {
 public:
  explicit Server(WorkerParts parts);
  void run() override;
  void add_to(JobOutcome& outcome) const override;

 private:
  /// A worker, as it is seen from here.
  struct Client {
    EdgeId request = {}, reply = {};
    ServerRequest asked = {};   ///< what it asked last
    ServerRequest update = {};  ///< its last update
    Tensors gradients = {};     ///< of that
    Tensors read = {};          ///< rows of tables, that it read last
    bool has_left = false;
  };
  void build();
  bool look();
  void wait();
  void receive(int worker);
  void serve(int worker, Tensors tensors);
  void make(const UpdateGate::Let& let);
  void answer(int worker, ServerReply reply = {}, Tensors tensors = {});
  void hand_out();
  void forget_report();
  void settle(const ServerRequest& asked);
  template <typename Work>
  void timed(InstructionKind what, std::int64_t step, const Work& work);
  std::string where(int worker) const;
  Client& client(int worker) { return clients_[static_cast<std::size_t>(worker)]; }

  WorkerParts parts_;
  const Program* program_;
  int number_;                   // among the servers
  std::vector<Client> clients_;  // by worker, whose rows are the first ones
  int left_ = 0;
  UpdateGate gate_;
  std::int64_t updates_;  // of the optimizer
  std::optional<ServedWeights> weights_;
  std::optional<Desk> desk_;
  WorkerReport report_;    // since the last answer
  std::int64_t step_ = 0;  // the last one that somebody has asked for
  StopReason stop_ = StopReason::none;
  std::vector<ParameterHash> hashes_;
};

}  // namespace lockstep
