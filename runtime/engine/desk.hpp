// SPDX-License-Identifier: Apache-2.0
//
// Where workers with servers learn what to do next: shares of training steps, batches of evaluations, checkpoints. It
// is what a Ledger is to programs: it asks the decider, merges what comes back, and sends and receives nothing. One
// thread, of the first server.
//
// Between training and an evaluation, in front of a checkpoint and at the end it hands out nothing until all is done
// that it has handed out: what is evaluated or saved are the weights behind whole mini-batches.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "runtime/base/log.hpp"
#include "runtime/engine/director.hpp"
#include "runtime/engine/results.hpp"
#include "runtime/observe/observer.hpp"
#include "runtime/schedule/server_messages.hpp"
#include "runtime/schedule/share_book.hpp"

namespace lockstep {

class Desk {
 public:
  struct Options {
    int workers = 1, servers = 1;  ///< whose rows follow those of the workers
    Replicas replicas = {};
    int max_staleness = 0;
    std::set<int> tellers = {};    ///< workers that tell results to the observer of their process
    Observer* observer = nullptr;  ///< of this process; may be null
    Log log = {};
  };
  /// References outlive it. `metrics`: of evaluations.
  Desk(Decider& decider, const Metrics& metrics, Options options);

  /// A worker asks for work. `done`: of what it had; empty: it had nothing yet. `servers`: what these have done.
  void ask(int worker, const std::string& done, const std::vector<WorkerReport>& servers);
  /// It has ended, or, with a reason, failed: others do what it had. Throws Error when nobody is left to do it.
  void leave(int worker, const std::string& why);
  struct Order {
    int worker = 0;
    StepHeader header;
  };
  /// What workers are to do that have asked; the others have to wait.
  std::vector<Order> orders(const WaitLimits& limits);

  /// A worker for which those who have asked have to wait; -1: nobody has to.
  int waits_for() const { return waiting_.empty() || at_work_.empty() ? -1 : at_work_.begin()->first; }

 private:
  /// A step, a batch of an evaluation, or a checkpoint, until all of it is done.
  struct Run {
    StepHeader header;
    std::vector<RowResult> rows;
    std::vector<WorkerReport> servers;
    bool is_done = false;
  };
  std::optional<StepHeader> next_for(int worker, const WaitLimits& limits);
  bool decide(const WaitLimits& limits);
  void open(StepHeader header);
  void finish_runs();
  StepResult merged(Run run);
  Run& run_of(std::int64_t sequence);
  bool by_shares() const { return options_.max_staleness > 0; }

  Decider& decider_;
  Results results_;
  Options options_;
  ShareBook book_;
  std::deque<Run> runs_;                  // in order
  std::deque<std::int64_t> to_hand_out_;  // sequences of runs that are no training steps
  std::map<int, std::int64_t> at_work_;   // by worker: the sequence
  std::deque<int> waiting_;               // workers that have asked, in order
  std::set<int> left_;
  std::optional<StepHeader> decided_;  // waits until what goes before is done
  std::optional<StepHeader> stop_;
  std::int64_t sequence_ = -1, save_step_ = -1;
  bool saves_ = false;  // behind the last step that was opened
  std::vector<std::string> saved_;
  std::vector<StepResult> finished_;               // not taken by the decider yet
  std::map<int, std::vector<StepResult>> untold_;  // by teller
  double last_end_us_ = 0;
  std::string first_failure_;
};

}  // namespace lockstep
