// SPDX-License-Identifier: Apache-2.0
//
// The layers of a problem added up into stages. Private to this folder: what problem.hpp declares, with the tables that
// a search of many choices makes once.
#pragma once

#include <vector>

#include "partitioner/problem.hpp"

namespace lockstep {

/// Where the other layers are, as seen from a stage. Within a rank a message is the tensor itself, which stays with the
/// stage that made it.
class Surroundings {
 public:
  virtual ~Surroundings() = default;
  /// Whether a layer of another stage that makes something read here is on the same rank (layer 0 for the data).
  virtual bool made_nearby(int layer) const = 0;
  /// The same of a layer that reads something made here.
  virtual bool read_nearby(int layer) const = 0;
};

class CostModel {
 public:
  /// Keeps a reference. Throws UserError when the problem contradicts itself.
  explicit CostModel(const PlanProblem& problem);

  const PlanProblem& problem() const { return problem_; }
  int layers() const { return problem_.graph.layers(); }
  int workers() const { return static_cast<int>(problem_.workers.size()); }
  /// Kinds of device that workers have, by number, in the order of the workers.
  int kinds() const { return static_cast<int>(kinds_.size()); }
  int kind_of(std::size_t worker) const { return kind_of_worker_[worker]; }
  const LayerCost& cost(int kind, int layer) const {
    return (*kinds_[static_cast<std::size_t>(kind)])[static_cast<std::size_t>(layer)];
  }
  /// Of the fastest worker of the kind.
  double fastest(int kind) const { return fastest_[static_cast<std::size_t>(kind)]; }
  /// The workers with speeds that compare whatever their kinds: of the whole model, against kind 0.
  const std::vector<PlannedWorker>& compared_workers() const { return compared_workers_; }

  /// Throws UserError when the choice does not fit the problem.
  void check(const PlanChoice& choice) const;
  /// Of a choice that fits, and its schedule.
  Costs costs(const PlanChoice& choice, const Schedule& schedule) const;
  Program program(const PlanChoice& choice, const Schedule& schedule) const;

  // Of the stage of layers [first, last) of one pipeline, at speed 1:
  StageCost stage(int kind, int first, int last, const Surroundings& around) const;
  bool has_backward(int first, int last) const;
  bool has_weight_grad(int first, int last) const;
  /// `whole`: every parameter held there, once; else only those whose first holder is there.
  double resident_bytes(int kind, int first, int last, bool whole) const;
  /// At least, whatever else the worker has: what is tied to an earlier layer is not counted.
  double update_us(int kind, int first, int last) const;
  /// Messages of one micro-batch that come into the stage when every other stage is on another rank.
  double values_in_bytes(int first, int last) const;
  double gradients_in_bytes(int first, int last) const;

  struct Read {
    int value = 0;
    int uses = 1;
  };
  const std::vector<Read>& reads(int layer) const { return reads_[static_cast<std::size_t>(layer)]; }
  const std::vector<int>& outputs(int layer) const { return outputs_[static_cast<std::size_t>(layer)]; }
  /// A buffer for each trainable parameter that the layer holds.
  double gradient_bytes(int layer) const { return gradient_bytes_[static_cast<std::size_t>(layer)]; }
  const LayerValue& value(int id) const { return problem_.graph.values[static_cast<std::size_t>(id)]; }
  double value_bytes(int id) const { return problem_.value_bytes[static_cast<std::size_t>(id)]; }
  bool layer_has_backward(int layer) const { return problem_.graph.has_backward[static_cast<std::size_t>(layer)]; }
  bool computes_weights(int layer) const {
    return layer_has_backward(layer) && problem_.graph.trainable[static_cast<std::size_t>(layer)];
  }

 private:
  struct Held {
    int parameter = 0;
    int count = 1;      ///< how often the layer holds it
    bool first = true;  ///< no layer before holds it
  };
  /// What a row has of what its layers hold: where replicas share a memory, the first one has it all.
  struct HeldShare {
    double values = 1, optimizer = 1;
  };

  void check_problem() const;
  void find_kinds();
  bool keeps_state_twice() const { return problem_.clip && problem_.post_validation; }
  double parameter_resident_bytes(int parameter, const HeldShare& held) const;
  /// `rows`: of the stages of one replica, whose first row is 0.
  double update_us_of_row(int kind, int row, const std::vector<int>& first, const std::vector<WorkerId>& rows) const;
  double resident_bytes_of_row(int kind, int row, const std::vector<int>& first, const std::vector<WorkerId>& rows,
                               const HeldShare& held) const;
  /// By row, of all replicas.
  std::vector<WorkerPlace> places_of(const PlanChoice& choice, const Schedule& schedule) const;
  void share_work(const PlanChoice& choice, const Schedule& schedule, const std::vector<int>& first,
                  const std::vector<WorkerId>& rows, Costs& costs) const;
  void add_messages(const std::vector<int>& first, const std::vector<WorkerId>& rows, Costs& costs) const;
  Topology topology(const std::vector<int>& first) const;

  const PlanProblem& problem_;
  std::vector<const std::vector<LayerCost>*> kinds_;
  std::vector<int> kind_of_worker_;
  std::vector<double> fastest_;  ///< by kind
  std::vector<PlannedWorker> compared_workers_;
  std::vector<std::vector<Read>> reads_;   ///< by layer: distinct values, losses included
  std::vector<std::vector<int>> outputs_;  ///< by layer: values
  std::vector<std::vector<Held>> held_;    ///< by layer
  std::vector<double> gradient_bytes_;     ///< by layer
};

}  // namespace lockstep
