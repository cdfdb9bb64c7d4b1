// SPDX-License-Identifier: Apache-2.0
//
// All workers of one process: makes their channels, runs each on a thread of its own, and joins them.
//
// The first worker that throws ends the job: its exception comes out of run_job(), the others are released from their
// waits.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/engine/memory.hpp"
#include "runtime/engine/remote_links.hpp"
#include "runtime/engine/worker.hpp"
#include "runtime/host/binding.hpp"

namespace lockstep {

/// Which rank runs which row; in one process every row is on rank 0.
struct Layout {
  std::vector<RankId> rank_of_row;
  RankId here = RankId(0);
};

/// Puts something around the channel of edge `edge` (index in Program::edges). For tests, which delay messages with it.
using WrapChannel = std::function<std::unique_ptr<Channel>(std::unique_ptr<Channel> channel, int edge)>;

struct JobSpec {
  const ModelGraph& graph;
  const Partition& partition;
  const Losses& losses;
  Programs& programs;
  Layout layout;
  StageOptions stage = {};               ///< of row 0; `device` is replaced per row
  DrawnParameters draws = {};            ///< the keepers fill in the others
  std::vector<at::Device> devices = {};  ///< by row
  int threads = 1;                       ///< intra-op threads of every worker
  std::vector<Cpus> cpus = {};           ///< of the rows that are here, in row order; empty: not bound
  double clip_grad_norm = 0;
  int max_staleness = 0;          ///< with Topology::servers: ServerRules'
  std::int64_t steps_before = 0;  ///< the first step is the next one
  MakeUpdater make_updater = {};
  bool central_storage = false;  ///< weights and optimizer state are in main memory: WeightOptions::central
  std::function<std::unique_ptr<StateKeeper>(int row)> make_keeper = {};  ///< empty: nothing is saved or restored
  std::chrono::milliseconds wait_limit{300'000};                          ///< of a wait for a worker that stands still
  std::chrono::milliseconds startup_limit{600'000};                       ///< of a wait for a worker that has not begun
  std::chrono::milliseconds save_limit{3'600'000};                        ///< of a save that writes nothing
  std::int64_t memory_limit = 0;                                          ///< bytes of tensors per worker; 0: none
  std::string recorder_folder = {};   ///< where flight recorders go; empty: memory only
  Decider* decider = nullptr;         ///< needed where row 0 is
  std::vector<Feeder*> feeders = {};  ///< by replica; needed where its first stage is
  Observer* observer = nullptr;       ///< may be null
  const std::atomic<bool>* signalled = nullptr;
  bool record_hashes = false;
  bool measure_products = false;  ///< how fast each worker multiplies matrices: WorkerReport::product_rate
  RecordRange record = {};        ///< steps whose timeline is recorded
  std::int64_t dump_step = 0;     ///< which is handed to `take_dump`, on the workers' threads; 0: none
  TakeDump take_dump = {};
  RemoteLinks* remote = nullptr;  ///< null when all rows are here
  WrapChannel wrap_channel = {};  ///< may be empty
  Log log = {};
};

JobOutcome run_job(const JobSpec& spec);

}  // namespace lockstep
