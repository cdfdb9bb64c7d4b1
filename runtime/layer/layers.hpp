// SPDX-License-Identifier: Apache-2.0
//
// Our own standard layers. Each works on the last dimension of one entry and keeps its leading sizes.
#pragma once

#include <functional>

#include "runtime/base/table.hpp"
#include "runtime/layer/layer_of.hpp"
#include "runtime/layer/parts.hpp"

namespace lockstep {

struct Field;

/// A larger size of one dimension (width, vocabulary, channels) is a slip of the finger: products of such overflow.
inline constexpr std::int64_t kMostSize = 1 << 24;

struct LinearConfig {
  std::int64_t in = 0, out = 0;
  bool bias = true;
};
void fields(FieldVisitor& visit, LinearConfig& config);

/// y = x W^T + b: [..., in] -> [..., out]. Initial values as torch.nn.Linear: uniform in +-1/sqrt(in).
class Linear : public LayerOf<LinearConfig> {
 public:
  explicit Linear(const LinearConfig& config)
      : LayerOf("linear", config), part_{"", config.in, config.out, {.bias = config.bias}} {}
  Linear(std::int64_t in, std::int64_t out, bool bias = true) : Linear(LinearConfig{in, out, bias}) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  LinearPart part_;
};

/// An element-wise function by name.
struct ActivationKind {
  std::string name;
  std::string summary;                                 ///< a line for `lockstep list activations`
  std::function<at::Tensor(const at::Tensor&)> apply;  ///< differentiable, by LibTorch's operators; no state
  /// The same in an ONNX graph; empty: it has no ONNX form.
  std::function<std::string(OnnxGraph&, const std::string&)> onnx = {};
};

/// relu, gelu (exact), gelu_tanh, tanh, sigmoid, silu.
Table<ActivationKind> activation_kinds();

class Activation : public Layer {
 public:
  explicit Activation(ActivationKind kind) : kind_(std::move(kind)) {}
  /// One of activation_kinds(). Throws ModelError with their names.
  explicit Activation(const std::string& name);
  std::string type() const override { return kind_.name; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  ActivationKind kind_;
};

struct LayerNormConfig {
  std::int64_t width = 0;
  double epsilon = 1e-5;
};
void fields(FieldVisitor& visit, LayerNormConfig& config);

/// Ba, Kiros, Hinton, "Layer Normalization" (2016), over the last dimension. Parameters weight (ones), bias (zeros).
class LayerNorm : public LayerOf<LayerNormConfig> {
 public:
  explicit LayerNorm(const LayerNormConfig& config)
      : LayerOf("layer_norm", config), part_{"", config.width, config.epsilon} {}
  explicit LayerNorm(std::int64_t width, double epsilon = 1e-5) : LayerNorm(LayerNormConfig{width, epsilon}) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  LayerNormPart part_;
};

struct RmsNormConfig {
  std::int64_t width = 0;
  double epsilon = 1e-6;
};
void fields(FieldVisitor& visit, RmsNormConfig& config);

/// RmsNormPart as a layer: x / sqrt(mean(x^2) + epsilon) * weight, over the last dimension.
class RmsNorm : public LayerOf<RmsNormConfig> {
 public:
  explicit RmsNorm(const RmsNormConfig& config)
      : LayerOf("rms_norm", config), part_{"", config.width, config.epsilon} {}
  explicit RmsNorm(std::int64_t width, double epsilon = 1e-6) : RmsNorm(RmsNormConfig{width, epsilon}) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  RmsNormPart part_;
};

struct EmbeddingConfig {
  std::int64_t count = 0, width = 0;
  bool sparse = false;
};
void fields(FieldVisitor& visit, EmbeddingConfig& config);

/// Indices (int64, any shape) -> rows of a table: [...] -> [..., width]. Normal initial values with standard deviation
/// 1, as torch.nn.Embedding.
class Embedding : public LayerOf<EmbeddingConfig> {
 public:
  explicit Embedding(const EmbeddingConfig& config)
      : LayerOf("embedding", config), part_{"", config.count, config.width, Init::normal(1.0), -1, config.sparse} {}
  Embedding(std::int64_t count, std::int64_t width) : Embedding(EmbeddingConfig{count, width}) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  EmbeddingPart part_;
};

struct DropoutConfig {
  double p = 0;
};
void fields(FieldVisitor& visit, DropoutConfig& config);

/// Zeroes elements with probability p in training and scales the others by 1 / (1 - p).
class Dropout : public LayerOf<DropoutConfig> {
 public:
  explicit Dropout(const DropoutConfig& config) : LayerOf("dropout", config) {}
  explicit Dropout(double p) : Dropout(DropoutConfig{p}) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;
};

/// Sum of all inputs, added from first to last: the end of a skip connection.
class Add : public Layer {
 public:
  std::string type() const override { return "add"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;
};

/// For fields(): a size of one dimension, and what keeps a division from dividing by zero.
Field size_field(std::int64_t& size);
Field epsilon_field(double& epsilon);

/// For describe(): exactly `count` inputs, else a ModelError naming the layer type.
void expect_inputs(const Layer& layer, const std::vector<EntrySpec>& inputs, std::size_t count);
/// For describe(): a floating entry, else a ModelError.
void expect_floating(const Layer& layer, const EntrySpec& input);
/// For describe(): a floating entry whose last dimension is `width`, else a ModelError.
void expect_width(const Layer& layer, const EntrySpec& input, std::int64_t width);
/// For describe(): indices that are known to be below `count`, or not known, else a ModelError. `name`: what the model
/// calls the count.
void expect_below(const Layer& layer, const EntrySpec& indices, std::int64_t count, const char* name);

}  // namespace lockstep
