// SPDX-License-Identifier: Apache-2.0
//
// What the parts of a program cost: times, messages and bytes, by stage, by edge and by row.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "runtime/schedule/program.hpp"

namespace lockstep {

/// Bytes at most alive while an action runs, beyond those when it began.
struct Workspace {
  double forward = 0;
  double backward = 0, input_grad = 0, weight_grad = 0;
};

struct StageCost {
  double forward_us = 0;
  double input_grad_us = 0;
  double weight_grad_us = 0;     ///< B costs input_grad_us + weight_grad_us
  double activation_bytes = 0;   ///< per micro-batch, from the start of F to the end of I or B
  double weight_grad_bytes = 0;  ///< per micro-batch, from the end of I to the end of W
  // Of a micro-batch whose forward is run again (recomputed() in program.hpp):
  double recompute_us = 0;                ///< B and I cost so much more
  double recompute_activation_bytes = 0;  ///< takes the place of activation_bytes. Layers are run again one by one, so
                                          ///< the activations of no more than one of them are there at once; these are
                                          ///< not counted. What W needs of them lives from I to W, as ever
  // For Simulation::total_bytes alone:
  double gradient_bytes = 0;       ///< of the stage's parameters, from the first B or W of a step to the update
  Workspace workspace = {};        ///< once the gradients are there
  Workspace first_workspace = {};  ///< while the first B or W of a step makes them: gradient_bytes are part of it
  Workspace recompute_workspace = {},
            recompute_first_workspace = {};  ///< the same of a micro-batch whose forward is run again
};

struct LinkCost {
  double latency_us = 0;
  double bytes_per_us = std::numeric_limits<double>::infinity();
  double busy_us_per_byte = 0;  ///< that the worker at either end loses, where it moves the message while it computes
  bool operator==(const LinkCost&) const = default;

  double transfer_us(double bytes) const { return latency_us + bytes / bytes_per_us; }
};

inline constexpr const char* kHostDevice = "cpu";

struct WorkerPlace {
  int rank = 0;
  int host = 0;
  std::string device = kHostDevice;  ///< of the rank, as workers.devices names it
  bool operator==(const WorkerPlace&) const = default;

  bool is_on_host() const { return device == kHostDevice; }
  /// Where one worker makes a tensor the other one may read it.
  bool shares_memory_with(const WorkerPlace& other) const { return rank == other.rank && device == other.device; }
};

/// Links by class.
struct Links {
  LinkCost same_rank = {}, same_host = {}, other_host = {};
  LinkCost to_device = {}, to_host = {}, between_devices = {};  ///< copies within a rank

  /// A message. Within a rank it is handed over, and copied only to the memory of another device; between ranks what a
  /// device has goes through the host at either end.
  LinkCost between(const WorkerPlace& from, const WorkerPlace& to) const;
};

struct Costs {
  std::vector<StageCost> stages;       ///< index = stage
  std::vector<double> flow_bytes;      ///< index = Topology::flows, per micro-batch, each way; empty: 0
  std::vector<double> shared_bytes;    ///< index = Topology::shared; empty: 0
  double element_bytes = 4;            ///< of a gradient or weight, in messages between replicas
  Links links;                         ///< messages of other kinds cost the latency alone
  std::vector<WorkerPlace> places;     ///< index = row; empty: each is a rank of its own on one host
  std::vector<double> update_us;       ///< index = row; empty: 0
  std::vector<double> reduce_us;       ///< index = row: of all its buckets; empty: 0
  std::vector<double> resident_bytes;  ///< index = row: parameters, optimizer state, data; empty: 0

  LinkCost link(WorkerId from, WorkerId to) const;
  /// On one device of a rank a message is handed over by pointer and needs no slot: a value stays its maker's, a
  /// gradient is its receiver's from then on.
  bool by_pointer(WorkerId a, WorkerId b) const;
};

/// The same cost for every stage, everything else free.
Costs equal_costs(int stages, double forward_us, double input_grad_us, double weight_grad_us);

/// Throws UserError when they are of another number of stages, flows or rows than the program, negative, or no number.
void check_costs(const Costs& costs, const Program& program);

}  // namespace lockstep
