// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/norms.hpp"

#include <ATen/ATen.h>

#include "runtime/base/check.hpp"
#include "runtime/config/field.hpp"
#include "runtime/layer/onnx_graph.hpp"

namespace lockstep {
namespace {

// Any number of spatial dimensions.
void expect_any_channels(const Layer& layer, const EntrySpec& input, std::int64_t channels) {
  const std::size_t dims = input.sizes.size();
  expect_channels(layer, input, channels, dims >= 2 && dims <= 4 ? dims - 2 : 2);
}

// The buffers of BatchNorm, as torch.nn names them.
constexpr const char* kMean = "running_mean";
constexpr const char* kVariance = "running_var";
constexpr const char* kSteps = "num_batches_tracked";

Buffer& find(std::vector<Buffer>& buffers, const std::string& name) {
  for (Buffer& buffer : buffers)
    if (buffer.local_name == name) return buffer;
  LOCKSTEP_CHECK(false, "no buffer '", name, "'");
}

}  // namespace

void fields(FieldVisitor& visit, GroupNormConfig& config) {
  visit("groups", size_field(config.groups).required());
  visit("channels", size_field(config.channels).required());
  visit("epsilon", epsilon_field(config.epsilon));
}

GroupNorm::GroupNorm(const GroupNormConfig& config) : LayerOf("group_norm", config), part_{"", config.channels} {
  if (config.channels % config.groups != 0)
    throw ModelError(concat("a group_norm layer has ", config.channels, " channels in ", config.groups,
                            " groups; the groups must divide the channels"));
}

LayerDescription GroupNorm::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_any_channels(*this, inputs[0], part_.channels);
  return described({inputs[0]}, part_);
}

Tensors GroupNorm::forward(const Tensors& inputs, LayerContext& context) const {
  const auto [weight, bias] = part_.beside(inputs[0], context);
  return {at::group_norm(inputs[0], config().groups, weight, bias, config().epsilon)};
}

std::vector<std::string> GroupNorm::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  const std::int64_t groups = config().groups;
  const at::Tensor ones = at::ones({groups}), zeros = at::zeros({groups});
  const std::string normal = graph.add(
      "InstanceNormalization", {graph.reshape(inputs[0], {0, groups, -1}), graph.constant(ones), graph.constant(zeros)},
      {{"epsilon", config().epsilon}});
  const auto per_channel = [&](const char* name) { return graph.unsqueeze(graph.parameter(name), {1}); };
  const std::string channels = graph.reshape(normal, {0, part_.channels, -1});
  const std::string y = graph.add("Add", {graph.add("Mul", {channels, per_channel("weight")}), per_channel("bias")});
  return {graph.add("Reshape", {y, graph.add("Shape", inputs)})};
}

void fields(FieldVisitor& visit, BatchNormConfig& config) {
  visit("channels", size_field(config.channels).required());
  visit("momentum", value(config.momentum, between(0.0, 1.0)));
  visit("epsilon", epsilon_field(config.epsilon));
}

LayerDescription BatchNorm::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_any_channels(*this, inputs[0], part_.channels);
  LayerDescription description = described({inputs[0]}, part_);
  description.buffers = {{kMean, {part_.channels}, at::kFloat, 0.0},
                         {kVariance, {part_.channels}, at::kFloat, 1.0},
                         {kSteps, {}, at::kLong, 0.0}};
  std::int64_t positions = 1;
  for (std::size_t d = 2; d < inputs[0].sizes.size(); ++d) positions *= inputs[0].sizes[d];
  description.least_rows = positions > 1 ? 1 : 2;
  return description;
}

Tensors BatchNorm::forward(const Tensors& inputs, LayerContext& context) const {
  const at::Tensor& x = inputs[0];
  const at::Tensor weight = part_.weight(context), bias = part_.bias(context);
  const double momentum = config().momentum, epsilon = config().epsilon;
  if (!context.training())
    return {std::get<0>(at::native_batch_norm(x, weight, bias, context.buffer(kMean), context.buffer(kVariance),
                                              /*training=*/false, momentum, epsilon))};
  const std::int64_t count = x.numel() / part_.channels;
  if (count < 2)
    throw ModelError(concat("expected more than 1 value per channel when training, got input size [", join(x.sizes()),
                            "]; use fewer micro-batches, or a batch that leaves no such remainder"));
  // LibTorch gives away the variance only through its running statistics: with a momentum of 1 they are this
  // micro-batch's mean and unbiased variance.
  const at::Tensor mean = at::zeros({part_.channels}, weight.options().requires_grad(false));
  const at::Tensor variance = at::zeros_like(mean);
  at::Tensor y =
      std::get<0>(at::native_batch_norm(x, weight, bias, mean, variance, /*training=*/true, /*momentum=*/1.0, epsilon));
  context.collect({mean, variance, at::scalar_tensor(count, mean.options().dtype(at::kLong))});
  return {y};
}

std::vector<std::string> BatchNorm::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  return {graph.add("BatchNormalization",
                    {inputs[0], graph.parameter("weight"), graph.parameter("bias"), graph.parameter(kMean),
                     graph.parameter(kVariance)},
                    {{"epsilon", config().epsilon}})};
}

void BatchNorm::end_step(std::vector<Buffer>& buffers, const std::vector<Tensors>& collected) const {
  const double momentum = config().momentum;
  const at::Tensor running_mean = find(buffers, kMean).value, running_var = find(buffers, kVariance).value;
  at::Tensor mean = at::zeros_like(running_mean, at::kDouble), squares = at::zeros_like(mean);
  at::Tensor n = at::zeros({}, mean.options());
  for (const Tensors& micro_batch : collected) {
    const at::Tensor more = micro_batch[2].to(at::kDouble);
    const at::Tensor difference = micro_batch[0].to(at::kDouble) - mean;
    const at::Tensor between = (difference * difference * n * more).div_(n + more);
    squares += (micro_batch[1].to(at::kDouble) * (more - 1)).add_(between);
    mean += (difference * more).div_(n + more);
    n += more;
  }
  running_mean.copy_(mean * momentum + running_mean.to(at::kDouble) * (1 - momentum));
  running_var.copy_((squares / (n - 1)) * momentum + running_var.to(at::kDouble) * (1 - momentum));
  find(buffers, kSteps).value.add_(1);
}

}  // namespace lockstep
