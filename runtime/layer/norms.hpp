// SPDX-License-Identifier: Apache-2.0
//
// Norms over channels. Inputs [rows, channels] or [rows, channels, ...]; parameters weight (ones) and bias (zeros),
// float32 also beside bfloat16 inputs; gradients are computed in I.
#pragma once

#include "runtime/layer/image_layers.hpp"

namespace lockstep {

struct GroupNormConfig {
  std::int64_t groups = 0, channels = 0;
  double epsilon = 1e-5;
};
void fields(FieldVisitor& visit, GroupNormConfig& config);

/// Wu, He, "Group Normalization" (2018): over the channels of each of `groups` groups and all positions of a row.
class GroupNorm : public LayerOf<GroupNormConfig> {
 public:
  /// Throws ModelError when the groups do not divide the channels.
  explicit GroupNorm(const GroupNormConfig& config);
  GroupNorm(std::int64_t groups, std::int64_t channels, double epsilon = 1e-5)
      : GroupNorm(GroupNormConfig{groups, channels, epsilon}) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  AffinePart part_;
};

struct BatchNormConfig {
  std::int64_t channels = 0;
  double momentum = 0.1, epsilon = 1e-5;
};
void fields(FieldVisitor& visit, BatchNormConfig& config);

/// Ioffe, Szegedy, "Batch Normalization" (2015), of vectors [rows, channels], signals and images.
///
/// Training normalises every micro-batch with its own mean and (biased) variance per channel. Running statistics, the
/// buffers running_mean (zeros), running_var (ones) and num_batches_tracked (int64), are updated once per step,
/// whatever the schedule did: mean_b, unbiased var_b and number of values per channel n_b of the step's micro-batches
/// are merged in ascending order and in double (Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for
/// Computing Sample Variances", 1979), starting from zeros,
///
///   d = mean_b - mean;  S += var_b (n_b - 1) + d^2 n n_b / (n + n_b);  mean += d n_b / (n + n_b);  n += n_b
///
/// and then torch.nn.BatchNorm's update is applied once with the merged ones:
///
///   running_mean = momentum * mean        + (1 - momentum) * running_mean
///   running_var  = momentum * S / (n - 1) + (1 - momentum) * running_var          (unbiased)
///   num_batches_tracked += 1
///
/// computed in double, stored in float32 (with train.precision: fp64 in double). Outputs and gradients have the bits of
/// torch.nn.BatchNorm; running statistics of one micro-batch a step agree with its within float32 rounding (LibTorch
/// updates them in float32). Evaluation normalises with the running statistics of the last finished step. A training
/// micro-batch with a single value per channel is an error, as in torch; the trainer finds it before training.
class BatchNorm : public LayerOf<BatchNormConfig> {
 public:
  explicit BatchNorm(const BatchNormConfig& config) : LayerOf("batch_norm", config), part_{"", config.channels} {}
  explicit BatchNorm(std::int64_t channels, double momentum = 0.1, double epsilon = 1e-5)
      : BatchNorm(BatchNormConfig{channels, momentum, epsilon}) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;
  void end_step(std::vector<Buffer>& buffers, const std::vector<Tensors>& collected) const override;

 private:
  AffinePart part_;
};

}  // namespace lockstep
