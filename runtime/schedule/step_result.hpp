// SPDX-License-Identifier: Apache-2.0
//
// What a program run gave: what each stage, worker and head reports, and all of them merged. How it travels is in
// step_header.hpp, and so are the bytes of all control messages (step_header.cpp).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/enums.hpp"
#include "runtime/schedule/program.hpp"

namespace lockstep {

/// The first value that was not finite: forward first by micro-batch, then by layer.
struct NonFinite {
  int layer = -1;  ///< index in the model; -1: none
  int micro_batch = -1;
  std::string what;  ///< "output", "input gradient", "loss", "gradient of <parameter>"
  bool found() const { return !what.empty(); }
};

/// What tensor memory is for.
enum class MemoryKind : std::uint8_t { parameters, gradients, optimizer, activations, slots };

constexpr const char* to_string(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::parameters: return "parameters";
    case MemoryKind::gradients: return "gradients";
    case MemoryKind::optimizer: return "optimizer";
    case MemoryKind::activations: return "activations";
    case MemoryKind::slots: return "slots";
  }
  return nullptr;
}

using MemoryByKind = std::array<std::int64_t, kCount<MemoryKind>>;  ///< bytes; index: MemoryKind

/// What one stage cost in one program run. Times are summed over micro-batches.
struct StageReport {
  int stage = -1;
  double forward_us = 0, input_grad_us = 0, weight_grad_us = 0;
  double recompute_us = 0;  ///< forwards that were run again; not part of input_grad_us
  /// Floating-point operations of matrix products, backward included (LayerContext::count_products); without those of
  /// forwards that were run again.
  double operations = 0;
  int recomputed = 0;  ///< micro-batches whose forward was run again
  // Tensor bytes that the first micro-batch of each sort kept: see StageCost.
  std::int64_t activation_bytes = 0, weight_grad_bytes = 0, recompute_activation_bytes = 0;
  std::vector<double> layer_us = {};  ///< by layer of the stage: all of the above, its losses included
};

/// What one worker did in one program run.
struct WorkerReport {
  int row = -1;
  bool is_server = false;
  double compute_us = 0;            ///< in layers, loss and optimizer
  double wait_us = 0;               ///< in receive, send and wait_sends
  double data_us = 0;               ///< stood still for data that was not read yet
  double begin_us = 0, end_us = 0;  ///< first and last compute, on the worker's own clock
  std::int64_t peak_bytes = 0;      ///< tensor bytes alive at most, since the job began
  MemoryByKind peak_by_kind{};      ///< what they were for: the sum is peak_bytes
  /// Tensor bytes alive at most between two computes of this run, beyond parameters, gradients and optimizer state.
  std::int64_t in_flight_bytes = 0;
  double update_us = 0;        ///< the optimizer step
  double reduce_us = 0;        ///< adding up groups of micro-batches and replicas
  double replica_wait_us = 0;  ///< part of wait_us: for gradients, weights and word of other replicas
  double product_rate = 0;     ///< operations per second of a matrix product here; 0: not measured
  std::int64_t sent_bytes = 0, received_bytes = 0;  ///< of a worker with servers: of its requests and their replies
  std::vector<StageReport> stages = {};             ///< ascending

  /// An instruction took from `start_us` to `end_us`. `edge`: of a message.
  void count(InstructionKind kind, EdgeKind edge, double start_us, double end_us);
};

/// One head of the model in one program run.
struct HeadLoss {
  double sum = 0;          ///< of the numerators, in micro-batch order
  double denominator = 1;  ///< N of the whole mini-batch, over all replicas
  double weight = 1;       ///< in the sum over heads
  double loss() const { return sum / denominator; }
};

/// A metric of a whole evaluation set.
struct MetricValue {
  std::string name;
  double value = 0;                  ///< NaN: it is not defined there
  std::vector<double> picture = {};  ///< Metric::picture
};

/// 2-norms of one parameter in one training step.
struct ParameterNorms {
  int parameter = -1;   ///< in the model's parameter order
  double weight = 0;    ///< as the step left it
  double gradient = 0;  ///< before clipping
  double update = 0;    ///< of what the step changed
};

/// What one program run gave, merged over all workers. The same on every rank.
struct StepResult {
  std::int64_t sequence = -1;  ///< which program run
  Mode mode = Mode::train;
  std::int64_t step = 0;  ///< optimizer step, from 1; of an evaluation: the step after which it ran
  std::vector<HeadLoss> heads;
  double gradient_norm = 0;  ///< global 2-norm before clipping; 0 in evaluation
  double learning_rate = 0;
  std::int64_t samples = 0;
  int micro_batches = 0;
  double elapsed_us = 0;  ///< row 0: from this header to the next
  NonFinite non_finite;
  bool signalled = false;             ///< some rank was asked to stop
  bool last_of_evaluation = false;    ///< no further batch belongs to this evaluation of this set
  int set = 0;                        ///< of an evaluation: which of the data's sets
  std::vector<MetricValue> metrics;   ///< with last_of_evaluation: of all its batches
  std::vector<ParameterNorms> norms;  ///< with StepHeader::norms, of what is trained
  std::vector<WorkerReport> workers;  ///< by row
  /// With servers: how many updates of a part of the weights came when [n] updates of others had been made since the
  /// worker had read that part.
  std::vector<std::int64_t> staleness = {};

  double loss() const;          ///< sum over heads, in head order, of weight * loss
  double operations() const;    ///< of all stages
  double product_rate() const;  ///< of all workers together; 0: not measured
  /// Another batch of the same evaluation: sums of the heads, samples and time.
  void add(const StepResult& batch);
};

/// Squared norms of the gradients that a row has a part in.
struct NormParts {
  std::vector<int> parameters;  ///< indices in the model's parameter order; one of which a row has a share repeats
  std::vector<int> blocks;      ///< parallel: -1, all of it, or which block
  std::vector<double> squares;  ///< of their gradients
};

/// What one micro-batch adds to a loss (HeadLoss::sum).
struct Numerator {
  int head = 0, micro_batch = 0;
  double value = 0;
  auto operator<=>(const Numerator&) const = default;
};

/// What one micro-batch adds to a metric (Metric::state).
struct MetricState {
  int head = 0, metric = 0, micro_batch = 0;
  std::vector<double> numbers;
};

/// Of a run of a parameter's elements, which no other row has.
struct ChangeParts {
  std::vector<int> parameters;
  std::vector<std::int64_t> begins;  ///< parallel: the first element
  std::vector<double> squares;       ///< twice as many: of the weights, of what changed
};

/// What one row sends to row 0 after a program run; merged into a StepResult there.
struct RowResult {
  WorkerReport report;
  std::vector<Numerator> losses;     ///< of the heads here, by head and micro-batch
  std::vector<MetricState> metrics;  ///< of an evaluation
  NonFinite non_finite;
  bool signalled = false;
  NormParts norm;
  ChangeParts changes;             ///< with StepHeader::norms
  std::vector<std::string> saved;  ///< what this row has written of checkpoints: StateKeeper::take_reports()
  // With servers.
  std::vector<double> denominators = {};     ///< by head, of this share of the mini-batch, where each is an update
  std::vector<std::int64_t> staleness = {};  ///< StepResult's

  std::string to_bytes() const;  ///< a `result` message
  static RowResult from_bytes(const std::string& bytes);
};

/// Of two findings the one that came first in the step.
const NonFinite& first_of(const NonFinite& a, const NonFinite& b);

}  // namespace lockstep
