// SPDX-License-Identifier: Apache-2.0
//
// A job whose decider has nothing to do for far longer than comm.watchdog_s, in process and over MPI.
#pragma once

#include <chrono>
#include <thread>

#include "tests/parity/support.hpp"
#include "tests/test.hpp"

namespace lockstep::test {

/// Has nothing to do for a long time before step 3.
class Idler : public Decider {
 public:
  Idler(Decider& decider, std::chrono::milliseconds time) : decider_(decider), time_(time) {}
  void take(StepResult& result) override {
    decider_.take(result);
    results_.push_back(result);
  }
  StepHeader next(const WaitLimits& limits) override {
    double idle_us = 0;
    if (++calls_ == 3) {
      const auto end = std::chrono::steady_clock::now() + time_;
      idle_us = idle_until(limits, [&](std::chrono::milliseconds time) {
        std::this_thread::sleep_for(time);
        return std::chrono::steady_clock::now() >= end;
      });
    }
    StepHeader header = decider_.next(limits);
    header.idle_us = idle_us;
    return header;
  }
  const std::vector<StepResult>& results() const { return results_; }

 private:
  Decider& decider_;
  std::chrono::milliseconds time_;
  int calls_ = 0;
  std::vector<StepResult> results_;
};

inline void check_idling(Config config, const Ranks& ranks) {
  config.train.eval_every = 0;
  config.comm.watchdog_s = 1;
  constexpr std::chrono::milliseconds kIdle{3500};
  const Assembly assembly = assemble(mlp_with_skip(0.0, true), regression_data(16, 6, 3), config, ranks);
  BatchReader reader(assembly);
  TrainingDirector director(assembly, reader, {});
  Idler idler(director, kIdle);
  const TemporaryFolder folder;
  Log::Options log;
  log.file = folder.file("log.txt");
  RunOptions options;
  options.log = Log(log);
  CHECK_NOTHROW(run_assembly(assembly, idler, reader, {}, options));
  options.log.flush();
  CHECK(folder.read("log.txt").find("waited") == std::string::npos);
  if (!assembly.feeds()) return;
  REQUIRE(idler.results().size() == 5);
  for (const WorkerReport& worker : idler.results()[2].workers)
    CHECK(worker.wait_us < std::chrono::duration<double, std::micro>(kIdle).count() / 2);
  CHECK(idler.results()[2].elapsed_us < std::chrono::duration<double, std::micro>(kIdle).count());
}

}  // namespace lockstep::test
