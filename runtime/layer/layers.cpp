// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/layers.hpp"

#include <ATen/ATen.h>

#include "runtime/config/field.hpp"
#include "runtime/layer/onnx_graph.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {

Field size_field(std::int64_t& size) {
  return value(size, between<std::int64_t>(1, kMostSize));
}

Field epsilon_field(double& epsilon) {
  return value(epsilon, at_least(0.0));
}

void fields(FieldVisitor& visit, LinearConfig& config) {
  visit("in", size_field(config.in).required());
  visit("out", size_field(config.out).required());
  visit("bias", value(config.bias));
}

void fields(FieldVisitor& visit, LayerNormConfig& config) {
  visit("width", size_field(config.width).required());
  visit("epsilon", epsilon_field(config.epsilon));
}

void fields(FieldVisitor& visit, RmsNormConfig& config) {
  visit("width", size_field(config.width).required());
  visit("epsilon", epsilon_field(config.epsilon));
}

void fields(FieldVisitor& visit, EmbeddingConfig& config) {
  visit("count", size_field(config.count).required());
  visit("width", size_field(config.width).required());
  visit("sparse", value(config.sparse));
}

void fields(FieldVisitor& visit, DropoutConfig& config) {
  visit("p", value(config.p, fraction_below_one()).required());
}

void expect_inputs(const Layer& layer, const std::vector<EntrySpec>& inputs, std::size_t count) {
  if (inputs.size() != count)
    throw ModelError(concat("a ", layer.type(), " layer reads ", count, " entries, got ", inputs.size()));
}

void expect_floating(const Layer& layer, const EntrySpec& input) {
  if (!at::isFloatingType(input.dtype))
    throw ModelError(
        concat("a ", layer.type(), " layer got ", to_string(input), "; it expects a floating-point entry"));
}

void expect_width(const Layer& layer, const EntrySpec& input, std::int64_t width) {
  if (input.sizes.empty() || input.sizes.back() != width || !at::isFloatingType(input.dtype))
    throw ModelError(concat("a ", layer.type(), " layer of width ", width, " got ", to_string(input),
                            "; it expects a floating-point entry whose last dimension is ", width));
}

void expect_below(const Layer& layer, const EntrySpec& indices, std::int64_t count, const char* name) {
  if (indices.below > count)
    throw ModelError(concat("a ", layer.type(), " layer has a ", name, " of ", count, ", but ", indices.name,
                            " has values up to ", indices.below - 1, "; it needs a ", name, " of ", indices.below,
                            " or more"));
}

LayerDescription Linear::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_width(*this, inputs[0], part_.in);
  EntrySpec output = inputs[0];
  output.sizes.back() = part_.out;
  return described({output}, part_);
}

Tensors Linear::forward(const Tensors& inputs, LayerContext& context) const {
  return {part_(context, inputs[0])};
}

std::vector<std::string> Linear::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  return {part_.onnx(graph, inputs[0])};
}

namespace {

/// An operator that ONNX has.
std::function<std::string(OnnxGraph&, const std::string&)> onnx_operator(const char* op) {
  return [op](OnnxGraph& graph, const std::string& x) { return graph.add(op, {x}); };
}

}  // namespace

Table<ActivationKind> activation_kinds() {
  return {
      "activation",
      {{"relu", "max(x, 0)", [](const at::Tensor& x) { return at::relu(x); }, onnx_operator("Relu")},
       {"gelu", "x times the normal distribution function of x, exactly",
        [](const at::Tensor& x) { return at::gelu(x); }, onnx_gelu},
       {"gelu_tanh", "its approximation with tanh, GPT-2's", [](const at::Tensor& x) { return at::gelu(x, "tanh"); },
        onnx_gelu_tanh},
       {"tanh", "hyperbolic tangent", [](const at::Tensor& x) { return at::tanh(x); }, onnx_operator("Tanh")},
       {"sigmoid", "1 / (1 + exp(-x))", [](const at::Tensor& x) { return at::sigmoid(x); }, onnx_operator("Sigmoid")},
       {"silu", "x sigmoid(x), also called swish", [](const at::Tensor& x) { return at::silu(x); }, onnx_silu}}};
}

Activation::Activation(const std::string& name) {
  try {
    kind_ = activation_kinds().get(name);
  } catch (const UserError& error) {
    throw ModelError(error.what());
  }
}

LayerDescription Activation::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_floating(*this, inputs[0]);
  return described({inputs[0]});
}

Tensors Activation::forward(const Tensors& inputs, LayerContext&) const {
  return {kind_.apply(inputs[0])};
}

std::vector<std::string> Activation::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  if (!kind_.onnx) return Layer::onnx(graph, inputs);
  return {kind_.onnx(graph, inputs[0])};
}

LayerDescription LayerNorm::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_width(*this, inputs[0], part_.width);
  return described({inputs[0]}, part_);
}

Tensors LayerNorm::forward(const Tensors& inputs, LayerContext& context) const {
  return {part_(context, inputs[0])};
}

std::vector<std::string> LayerNorm::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  return {part_.onnx(graph, inputs[0])};
}

LayerDescription RmsNorm::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_width(*this, inputs[0], part_.width);
  return described({inputs[0]}, part_);
}

Tensors RmsNorm::forward(const Tensors& inputs, LayerContext& context) const {
  return {part_(context, inputs[0])};
}

std::vector<std::string> RmsNorm::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  return {part_.onnx(graph, inputs[0])};
}

LayerDescription Embedding::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  if (inputs[0].dtype != at::kLong)
    throw ModelError(concat("an embedding layer got ", to_string(inputs[0]), "; it expects int64 indices"));
  expect_below(*this, inputs[0], part_.count, "count");
  EntrySpec output = inputs[0];
  output.dtype = at::kFloat;
  output.below = 0;
  output.sizes.push_back(part_.width);
  return described({output}, part_);
}

Tensors Embedding::forward(const Tensors& inputs, LayerContext& context) const {
  return {part_(context, inputs[0])};
}

std::vector<std::string> Embedding::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  return {part_.onnx(graph, inputs[0])};
}

LayerDescription Dropout::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_floating(*this, inputs[0]);
  return described({inputs[0]});
}

Tensors Dropout::forward(const Tensors& inputs, LayerContext& context) const {
  return {dropout(context, inputs[0], config().p)};
}

std::vector<std::string> Dropout::onnx(OnnxGraph&, const std::vector<std::string>& inputs) const {
  return inputs;
}

LayerDescription Add::describe(const std::vector<EntrySpec>& inputs) const {
  if (inputs.size() < 2)
    throw ModelError(concat("an add layer got ", inputs.size(), " input, expected two or more, such as [x, h]"));
  for (const EntrySpec& input : inputs)
    if (input.sizes != inputs[0].sizes || input.dtype != inputs[0].dtype)
      throw ModelError(concat("an add layer got ", to_string(inputs[0]), " and ", to_string(input),
                              "; types and shapes must agree"));
  return described({inputs[0]});
}

Tensors Add::forward(const Tensors& inputs, LayerContext&) const {
  at::Tensor sum = inputs[0];
  for (std::size_t i = 1; i < inputs.size(); ++i) sum = sum + inputs[i];
  return {sum};
}

std::vector<std::string> Add::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  std::string sum = inputs[0];
  for (std::size_t i = 1; i < inputs.size(); ++i) sum = graph.add("Add", {sum, inputs[i]});
  return {sum};
}

}  // namespace lockstep
