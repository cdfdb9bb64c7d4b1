// SPDX-License-Identifier: Apache-2.0
//
// One layer as the only stage of one worker: made-up weights, inputs and gradients, run through the engine's own Stage.
// Used by one thread, in the scope of a MemoryPool of its own.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/engine/stage.hpp"
#include "runtime/profile/measure.hpp"

namespace lockstep {

/// Random numbers of which the weights and values of all benches are made.
at::Tensor bench_noise();

/// So many micro-batches of a batch are run, each of the rows that are measured.
inline constexpr int kBenchMicroBatches = 4;

class LayerBench {
 public:
  /// `pool`: the one in whose scope the bench is used, `watch`: of the stream in whose scope. All references outlive
  /// the bench.
  LayerBench(const GroupToMeasure& what, int layer, const at::Tensor& noise, MemoryPool& pool, Stopwatch& watch);

  /// Runs all micro-batches; the times of the sample stay 0.
  LayerSample bytes();

  // A micro-batch: F, then I and W. What the neighbouring layer has just made is touched first, outside of the times.
  void run_forward();
  void run_backward();
  /// Its times, when the watch has been set for it.
  const StageReport& report();

  /// One optimizer update of the layer, with its part of the global norm when `clip` is set. Needs a backward before.
  /// Microseconds; 0 when nothing is updated.
  double update(int step);

 private:
  /// A gradient that a layer outside sends back.
  struct OuterGradient {
    int value;
    Use use;
    at::Tensor tensor;
  };
  using Values = std::vector<std::pair<int, at::Tensor>>;

  void fill(at::Tensor& value, const Init& init) const;
  void scatter_noise(const at::Tensor& value, double scale) const;
  at::Tensor made_of(const at::IntArrayRef sizes, at::ScalarType dtype) const;
  at::Tensor made_of(int value) const;
  void begin();
  void make_data();
  Values make_inputs() const;
  std::vector<OuterGradient> make_gradients() const;
  void put(int micro_batch, const Values& inputs);
  void put(int micro_batch, const std::vector<OuterGradient>& gradients);
  void forward(int micro_batch, const Values& inputs, bool recompute = false);
  void input_grad(int micro_batch);
  double kept_since(std::int64_t before) const { return static_cast<double>(pool_.bytes() - before); }
  template <typename Work>
  double workspace_of(const Work& work);

  const ModelGraph& graph_;
  int layer_;
  const MeasureOptions& options_;
  const Tensors& data_of_rows_;
  bool has_backward_;
  const at::Tensor& noise_;
  MemoryPool& pool_;
  Weights weights_;
  Stopwatch& watch_;
  Readings readings_;  // which nobody wants to know
  std::optional<StageRun> run_;
  std::unique_ptr<Stage> stage_;
  StepHeader header_;
  Values data_;                                                                // by value
  std::vector<int> inputs_;                                                    // values that other layers make
  std::vector<std::pair<std::vector<std::int64_t>, at::ScalarType>> outputs_;  // as they come
  Values timed_inputs_;  // made when the first micro-batch is timed
  std::vector<OuterGradient> timed_gradients_;
};

}  // namespace lockstep
