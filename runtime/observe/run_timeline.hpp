// SPDX-License-Identifier: Apache-2.0
//
// The timeline of a run and its simulation, with what a reader needs to understand them: `timeline.json` of a run
// folder, and what traces and pages are made from. Torch-free.
//
//   {"format": 2, "name": "quickstart", "program": "1f1b 2x8 train", "micro_batches": 8, "clip": true,
//    "rank_of_worker": [0, 0],                "device_of_worker": ["cuda:0", "cpu"] if not all are on the host
//    "stages": [{"worker": 0, "layers": "embed .. h.1", "has_backward": true, "has_weight_grad": true}, ...],
//    "flows": [[from stage, to stage, differentiable], ...],
//    "edges": [{"kind": "value", "from": 0, "to": 1, "from_stage": 0, "to_stage": 1}, ...],
//    "sent": [8, 8],                          messages of values and gradients per step, by worker
//    "first_step": 3, "steps": 3, "cut": false, "clock_error_us": 0,
//    "planned_bytes": [], "limit_bytes": [],     by worker
//    "measured": [[["0F0", 0, 12.5, 801.2], ["receive", 0, 820.1, 35.0, 4, 2], ...], ...],
//    "simulated": ..., "memory": [[[at us, bytes], ...], ...]}
//
// By worker, ascending: [what, step counted from first_step, start us, duration us], and for messages the edge and the
// micro-batch (-1: none), for shared_sum which of the shared parameters, which is "item" of an edge. Times are in
// microseconds since the first work. Format 1 had "tie", "tie_sum" and "tie" for "shared", "shared_sum" and "item".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/observe/span_recorder.hpp"
#include "runtime/schedule/simulation.hpp"

namespace lockstep {

struct RunTimeline {
  std::string name;                 ///< of the config; of the schedule when nothing ran
  Program program;                  ///< without its rows
  std::vector<std::string> layers;  ///< by stage: "embed .. h.1"; empty when there is no model
  std::vector<int> rank_of_worker;
  std::vector<std::string> device_of_worker;  ///< empty: all are on the host
  std::vector<long> sent;                     ///< by worker: messages of values and gradients per step
  std::int64_t first_step = 1;                ///< the training step that Span::step 0 is
  int steps = 1;
  bool cut = false;           ///< the recorder's limit was reached
  double clock_error_us = 0;  ///< how far the clocks of two ranks may be apart
  Timeline measured;          ///< no spans: nothing ran
  Timeline simulated;
  std::vector<MemorySample> memory;
  std::vector<double> planned_bytes, limit_bytes;  ///< by worker: tensors as the plan said, and at most; empty: unknown

  int workers() const { return program.workers(); }  ///< and servers, whose rows are the last ones
  int servers() const { return program.topology.servers; }
  /// Which server a row is; below 0: a worker.
  int server_of(int row) const { return row - (workers() - servers()); }
  int workers_of_replica() const { return (workers() - servers()) / program.topology.replicas.count; }
  bool ran() const { return !measured.spans.empty(); }
};

/// The program's description and its simulation with the given costs.
RunTimeline simulated_timeline(const Program& program, const Costs& costs, int steps);

/// A recording of `program` (spans of all ranks on one clock, in any order), and the simulation of the same number of
/// steps with the costs that it shows. Steps that some worker has not recorded are left out; nothing when none is left.
/// With servers workers are at steps of their own, and there is nothing to simulate.
std::optional<RunTimeline> measured_timeline(const Program& program, Recorded recorded, std::int64_t first_step);

/// What computes and updates cost in this timeline: the median of every stage's F, I and W, and of every worker's
/// update. A stage that only ran B has all of B as its input gradient. Messages are free.
Costs costs_of(const Timeline& timeline, const Program& program);

/// What a worker did with its time, on average over the steps of a timeline.
struct WorkerShare {
  double compute_us = 0;  ///< in F, B, I and W
  double other_us = 0;    ///< in other work: update, sums, norms, headers
  double wait_us = 0;     ///< in receive, send and wait_sends
  double rest_us = 0;     ///< between the spans
};
struct Shares {
  double step_us = 0;  ///< from the first start to the last end, over the number of steps
  double bubble = 0;   ///< share of that in which a worker did no work
  std::vector<WorkerShare> workers;
};
Shares shares_of(const Timeline& timeline, int steps);

std::string to_json(const RunTimeline& timeline);
/// Throws UserError "`file`: ..." when the text is no timeline of this format.
RunTimeline timeline_from_json(const std::string& text, const std::string& file);

/// "rank 0", "rank 0, cuda:0".
std::string place_of_worker(const RunTimeline& timeline, int worker);

/// "stage 0: embed .. h.1", "stages 0, 3", "replica 1, stage 4: embed .. h.1".
/// "worker 3", "server 0".
std::string name_of_row(const RunTimeline& timeline, int row);
std::string stages_of_worker(const RunTimeline& timeline, int worker);

}  // namespace lockstep
