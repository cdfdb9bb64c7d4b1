// SPDX-License-Identifier: Apache-2.0
//
// What the planner is asked: a model of measured layers, workers and links. And what a choice would cost: the layers of
// each stage added up into the Costs that the simulator takes. Torch-free.
#pragma once

#include <limits>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/schedule/layer_graph.hpp"
#include "runtime/schedule/simulation.hpp"

namespace lockstep {

/// One layer and one micro-batch, on a worker of speed 1 and one kind of device. Bytes are tensors that the layer
/// itself makes: its inputs are its producers', its parameters and their gradients are LayerGraph's business.
struct LayerCost {
  double forward_us = 0, input_grad_us = 0, weight_grad_us = 0;
  double update_us = 0;         ///< optimizer step of its parameters, once per step
  double activation_bytes = 0;  ///< from F to I: outputs, and what the backward needs
  double recompute_activation_bytes =
      0;                         ///< the same when the layer is run again in the backward: without its outputs, which
                                 ///< the stage keeps only where a layer of it reads them. A loss is never run again:
                                 ///< what it keeps, its input too, is all that there is
  double weight_grad_bytes = 0;  ///< from I to W: all that W needs, inputs and gradients of outputs included (until
                                 ///< the stage's I is done, inputs are counted with their producer too)
  double step_bytes = 0;         ///< all the time: casts of its parameters, state that it carries
  double forward_workspace_bytes = 0;      ///< alive at most during F beyond those when it began
  double input_grad_workspace_bytes = 0;   ///< the same of I, when the gradients of its outputs are there
  double weight_grad_workspace_bytes = 0;  ///< the same of W, when the summed gradients are there
  double backward_workspace_bytes = 0;  ///< of B, I and then W, while its inputs and the gradients of its outputs stay
  bool recomputable = true;             ///< may be run again when the plan says so
  bool operator==(const LayerCost&) const = default;
};

/// A number of LayerCost, as files have it and as people write it by hand.
struct LayerCostField {
  const char* key;      ///< "forward_us"
  const char* by_hand;  ///< "forward_ms"
  double unit;          ///< of the number by hand
  bool is_time;         ///< else bytes
  bool per_row;         ///< grows with the rows of the micro-batch
  double LayerCost::*member;
};
/// All of them; the first three are what a layer by hand has to have.
std::span<const LayerCostField> layer_cost_fields();

/// A class of links, as files have it.
struct LinkClass {
  const char* key;  ///< "same_rank"
  bool copies;      ///< between devices of a rank: of no use where all workers are on the host
  LinkCost Links::*member;
};
std::span<const LinkClass> link_classes();

/// The kind of device that every host is. Others are called by type and card: "cuda NVIDIA H100 80GB HBM3".
inline constexpr const char* kHostKind = kHostDevice;

struct PlannedWorker {
  double speed = 1;  ///< times on it are those of its kind divided by this
  double limit_bytes = std::numeric_limits<double>::infinity();
  WorkerPlace place;
  std::string kind = kHostKind;  ///< of device: what layers cost there
};

struct PlanProblem {
  LayerGraph graph;
  std::map<std::string, std::vector<LayerCost>> layers;  ///< by kind of device; index = layer
  std::vector<double> value_bytes;                       ///< index = LayerGraph::values, of one micro-batch
  double parameter_bytes = 4;                            ///< per element
  /// What the optimizer keeps beside each of LayerGraph::parameters, if it is trained; empty: 8 per element, as Adam.
  std::vector<double> optimizer_bytes;
  double data_bytes = 0;  ///< of a whole mini-batch, where stage 0 is
  std::vector<PlannedWorker> workers;
  Links links;
  int micro_batches = 1;         ///< of one pipeline; of the replica that has most
  Replicas replicas;             ///< of the pipeline: what they add up and send each other is part of the plan
  bool central_storage = false;  ///< of several replicas weights are in main memory, and devices have copies
  bool has_central_storage() const { return central_storage && replicas.count > 1; }
  /// What adding one gradient to another costs a worker of speed 1, by kind of device; not there: nothing.
  std::map<std::string, double> add_us_per_byte;
  bool clip = false;             ///< the update waits for the global norm
  bool post_validation = false;  ///< see LowerOptions
};

/// One point of the search.
struct PlanChoice {
  std::vector<int> layers_per_stage;
  int virtual_stages = 1;
  std::string schedule = "1f1b";  ///< a generator's name
  Recompute recompute = Recompute::never;
  /// placement[row] = worker; whom it does not name is idle. Of several replicas: the rows of each, one after the
  /// other. Empty: all, in order.
  std::vector<int> placement = {};
  std::size_t worker_of(std::size_t row) const {
    return placement.empty() ? row : static_cast<std::size_t>(placement[row]);
  }
  bool operator==(const PlanChoice&) const = default;
};

/// Of a parameter's own value.
double value_bytes_of(const PlanProblem& problem, int parameter);
/// What the optimizer keeps beside a parameter; 0 of one that is not trained.
double optimizer_bytes_of(const PlanProblem& problem, int parameter);
/// Parameters, their gradients and optimizer state of layers [first, last), each once.
double state_bytes(const PlanProblem& problem, int first, int last);

/// How many workers the choice uses, in all replicas.
int rows_of(const PlanProblem& problem, const PlanChoice& choice);

/// With so many replicas, groups and micro-batches.
void set_replicas(PlanProblem& problem, const Replicas& replicas);

/// Leaves out the workers that the choice does not use: those that stay are numbered anew, and so are their ranks.
/// Gives the numbers that went.
std::vector<int> drop_idle(PlanProblem& problem, PlanChoice& choice);

/// The costs of the stages that the choice makes. Throws UserError when the choice does not fit the problem (layers,
/// workers, placement), ScheduleError when the schedule forbids its shape.
///
/// Where Costs has less room than a worker has detail: a flow's bytes are the larger of its two directions; casts
/// (step_bytes) stand all the time instead of from the first F on; of a layer that shares a parameter with an earlier
/// one of the same worker, which updates it once, update_us counts in proportion to its other elements; within a rank,
/// a value made by a stage without a backward is counted where it is read, and not on the worker that is charged for
/// it.
Costs costs_of(const PlanProblem& problem, const PlanChoice& choice);
/// The same of a schedule of one replica that is at hand, which no generator needs to know.
Costs costs_of(const PlanProblem& problem, const PlanChoice& choice, const Schedule& schedule);

/// The training program of the choice.
Program program_of(const PlanProblem& problem, const PlanChoice& choice);

/// Program and costs, simulated. Simulation::total_bytes is what a worker's limit bounds.
Simulation judge(const PlanProblem& problem, const PlanChoice& choice);

}  // namespace lockstep
