// SPDX-License-Identifier: Apache-2.0
//
// A stage at work: a run of consecutive layers with their parameters, and what is alive of each micro-batch.
//
// Each layer is an autograd island: its inputs are detached leaves, so the arithmetic is the same for every cut. Memory
// of a layer is freed as soon as its input gradient is known.
//
// One worker thread owns a Stage. Values and gradients go in with put_*, come out with values_of and gradients_of, and
// are let go with release_*; tensors that are put in are never written to. Its weights are lent to it, and so is the
// record of the run that it tells what it is at and what came of it.
#pragma once

#include <map>
#include <memory>
#include <unordered_map>

#include "runtime/base/dropout_kernel.hpp"
#include "runtime/engine/collected.hpp"
#include "runtime/engine/row_run.hpp"
#include "runtime/engine/step_dump.hpp"
#include "runtime/engine/weights.hpp"
#include "runtime/layer/metric.hpp"
#include "runtime/observe/pulse.hpp"
#include "runtime/schedule/step_header.hpp"

namespace lockstep {

class RemoteLinks;

struct StageOptions {
  std::uint64_t seed = 1;  ///< of the layers' random streams
  DropoutKernel dropout = DropoutKernel::torch;
  at::ScalarType precision = at::kFloat;
  at::Device device = at::kCPU;
  bool check_finite = true;          ///< look at every output and input gradient: names the first layer that breaks
  Metrics metrics = {};              ///< of evaluations
  std::vector<bool> recompute = {};  ///< by layer of the model: may be run again in the backward; empty: none is
  bool recompute_attention = false;  ///< LayerContext::recomputes_attention()
  Pulse* pulse = nullptr;            ///< of the worker: beats with every layer; may be null
  StepDump* dump = nullptr;          ///< what is computed, to be looked at; may be null
  RemoteLinks* links = nullptr;      ///< looked at when a layer begins; may be null
};

class Stage {
 public:
  /// `losses`: one per head. All references outlive the stage.
  Stage(const ModelGraph& graph, const Partition& partition, StageId id, const Losses& losses,
        const StageOptions& options, StageWeights& weights);

  /// A program run begins: nothing of an earlier one is alive. Both outlive the run.
  void begin(const StepHeader& header, StageRun& run);
  int layers() const { return last_ - first_; }

  void put_value(int micro_batch, int value, at::Tensor tensor);
  void put_gradient(int micro_batch, int value, Use use, at::Tensor tensor);

  /// `recompute`: the layers of StageOptions::recompute keep nothing but their inputs, and run once more when I or B
  /// comes to them.
  void forward(int micro_batch, bool recompute = false);
  void input_grad(int micro_batch);   ///< I; queues the weight gradients that can wait
  void weight_grad(int micro_batch);  ///< W
  void backward(int micro_batch);     ///< I then W, layer by layer

  /// Contents of a flow's messages, in the order of FlowContents. Undefined tensors are absent gradients.
  Tensors values_of(const FlowContents& flow, int micro_batch) const;
  Tensors gradients_of(const FlowContents& flow, int micro_batch) const;
  /// All outgoing values (gradients) have been taken: what only messages needed is let go.
  void release_values(int micro_batch);
  void release_gradients(int micro_batch);

  /// Of a training run, after the last compute: what layers have collected and set for the next step, for the same
  /// stage of other replicas, whose end_step() takes it for its own.
  Collected& collected() { return collected_; }
  /// Behind that: what layers collected is merged into their buffers, in micro-batch
  /// order, and the states that they set are kept.
  void end_step();

 private:
  struct Island {
    Tensors inputs;   // leaves
    Tensors outputs;  // with their graph; empty until recomputed, when the layer is
    bool recompute = false;
    std::vector<ParameterLeaf> leaves;
    std::unique_ptr<WeightGradQueue> weight_grads;
  };
  struct LossIsland {
    int head = 0;
    at::Tensor input, numerator;
  };
  struct MicroBatch {
    std::unordered_map<int, at::Tensor> values;
    std::map<std::pair<int, std::pair<int, int>>, at::Tensor> gradients;  // (value, (layer, position)), ascending
    std::vector<Island> islands;     // by layer - first_; empty when nothing will be differentiated
    std::vector<LossIsland> losses;  // in head order
    bool recompute = false;
  };

  void forward_layer(int layer, MicroBatch& batch, int micro_batch);
  Tensors call_layer(int layer, const Tensors& inputs, Island& island, bool needs_graph, int micro_batch,
                     bool recomputing = false);
  void forward_head(int head, MicroBatch& batch, int micro_batch);
  void measure_head(int head, const at::Tensor& output, const at::Tensor& targets, int micro_batch);
  void loss_gradients(MicroBatch& batch);
  void input_grad_layer(int layer, MicroBatch& batch, int micro_batch);
  at::Tensor take_gradient(MicroBatch& batch, int value);
  void run_backward(int micro_batch, bool with_weights);
  void run_weight_grads(int layer, Island& island);
  std::int64_t first_row(int micro_batch) const;  // in the mini-batch
  void keep_states(int layer);
  void enter_layer(int layer) const;
  /// `kind`: "activation", "gradient"; of an output of a layer.
  void dump(const char* kind, int layer, std::size_t output, int micro_batch, const at::Tensor& tensor) const;
  void look(const at::Tensor& value, int layer, int micro_batch, const char* what);

  const ModelGraph& graph_;
  StageId id_;
  const Replicas& replicas_;
  int first_, last_;        // layers [first_, last_)
  std::vector<int> heads_;  // the model's heads that are computed here
  bool has_backward_;
  const Losses& losses_of_heads_;
  StageOptions options_;
  at::Tensor anchor_;
  StageWeights& weights_;
  Collected collected_;
  std::map<int, MicroBatch> alive_;
  const StepHeader* header_ = nullptr;
  StageRun* run_ = nullptr;
};

}  // namespace lockstep
