// SPDX-License-Identifier: Apache-2.0
//
// `lockstep simulate`: when each worker does what under a schedule, or by a plan, without running anything.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "runtime/observe/run_timeline.hpp"
#include "runtime/schedule/simulation.hpp"

namespace lockstep {

struct SimulateOptions {
  std::string plan;               ///< a plan file: schedule and costs are its own; empty: none
  std::string schedule = "1f1b";  ///< a generator's name, auto, file:PATH, or a path that ends in .csv
  int stages = 0;                 ///< all stages; workers = stages / virtual_stages. 0: not given (a file says)
  int virtual_stages = 1;
  int micro_batches = 0;                              ///< 0: not given (a file says)
  std::vector<double> forward_ms;                     ///< one number, or one per stage; empty: 1
  std::vector<double> backward_ms;                    ///< the same; empty: twice the forward. Half of it is I, half W
  std::vector<double> input_grad_ms, weight_grad_ms;  ///< the same, instead of backward_ms; empty: the forward
  double update_ms = 0;                               ///< optimizer step of a worker
  bool clip = false;                                  ///< every update waits for the global norm
  std::string csv;                                    ///< file to write the schedule to; empty: none
  std::string html;                                   ///< file to write a page with the timeline to; empty: none
  std::string trace;                                  ///< likewise a Chrome trace
  int width = 120;
};

/// What is simulated: by a generator, a file, or a plan.
struct SimulateSubject {
  Schedule schedule;
  Program program;
  Costs costs;
  std::string note;                            ///< a line for the user; may be empty
  std::function<void(RunTimeline&)> describe;  ///< names of layers, ranks; may be empty
};
/// Of the plan in that file. Throws UserError.
using SubjectOfPlan = std::function<SimulateSubject(const std::string& path)>;

/// Prints grid (none beyond a million computes), step time, bubbles, micro-batches in flight and messages. Returns the
/// exit code of the command. Throws UserError with one line that names the flag.
int simulate_command(const SimulateOptions& options, std::ostream& out, const SubjectOfPlan& of_plan = {});

}  // namespace lockstep
