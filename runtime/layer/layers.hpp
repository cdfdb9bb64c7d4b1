// SPDX-License-Identifier: Apache-2.0
//
// Our own standard layers. Each works on the last dimension of one entry and keeps its leading sizes.
#pragma once

#include <functional>

#include "runtime/base/table.hpp"
#include "runtime/layer/layer.hpp"
#include "runtime/layer/parts.hpp"

namespace lockstep {

/// y = x W^T + b: [..., in] -> [..., out]. Initial values as torch.nn.Linear: uniform in +-1/sqrt(in).
class Linear : public Layer {
 public:
  Linear(std::int64_t in, std::int64_t out, bool bias = true) : part_{"", in, out, {.bias = bias}} {}
  std::string type() const override { return "linear"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;

 private:
  LinearPart part_;
};

/// An element-wise function by name.
struct ActivationKind {
  std::string name;
  std::string summary;                                 ///< a line for `lockstep list activations`
  std::function<at::Tensor(const at::Tensor&)> apply;  ///< differentiable, by LibTorch's operators; no state
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

 private:
  ActivationKind kind_;
};

/// Ba, Kiros, Hinton, "Layer Normalization" (2016), over the last dimension. Parameters weight (ones), bias (zeros).
class LayerNorm : public Layer {
 public:
  explicit LayerNorm(std::int64_t width, double epsilon = 1e-5) : part_{"", width, epsilon} {}
  std::string type() const override { return "layer_norm"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;

 private:
  LayerNormPart part_;
};

/// Indices (int64, any shape) -> rows of a table: [...] -> [..., width]. Normal initial values with standard deviation
/// 1, as torch.nn.Embedding.
class Embedding : public Layer {
 public:
  Embedding(std::int64_t count, std::int64_t width) : part_{"", count, width} {}
  std::string type() const override { return "embedding"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;

 private:
  EmbeddingPart part_;
};

/// Zeroes elements with probability p in training and scales the others by 1 / (1 - p).
class Dropout : public Layer {
 public:
  explicit Dropout(double p) : p_(p) {}
  std::string type() const override { return "dropout"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::string options() const override { return concat("p ", p_); }

 private:
  double p_;
};

/// Sum of all inputs, added from first to last: the end of a skip connection.
class Add : public Layer {
 public:
  std::string type() const override { return "add"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
};

/// For describe(): exactly `count` inputs, else a ModelError naming the layer type.
void expect_inputs(const Layer& layer, const std::vector<EntrySpec>& inputs, std::size_t count);
/// For describe(): a floating entry whose last dimension is `width`, else a ModelError.
void expect_width(const Layer& layer, const EntrySpec& input, std::int64_t width);
/// For describe(): indices that are known to be below `count`, or not known, else a ModelError. `name`: what the model
/// calls the count.
void expect_below(const Layer& layer, const EntrySpec& indices, std::int64_t count, const char* name);

}  // namespace lockstep
