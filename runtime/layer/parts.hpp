// SPDX-License-Identifier: Apache-2.0
//
// Pieces of layers: values that name their parameters once. A part describes itself into a LayerDescription and applies
// itself in forward(), so a layer of several is a struct of them:
//
//   class Block : public Layer {
//     LayerNormPart norm{"ln", width};
//     LinearPart up{"up", width, 4 * width}, down{"down", 4 * width, width};
//     LayerDescription describe(...) const override { return described({inputs[0]}, norm, up, down); }
//     Tensors forward(const Tensors& inputs, LayerContext& context) const override {
//       return {inputs[0] + down(context, at::relu(up(context, norm(context, inputs[0]))))};
//     }
//   };
//
// The parameters of a part are "<name>.weight", "<name>.bias"; without a name "weight", "bias".
#pragma once

#include <optional>
#include <utility>

#include "runtime/layer/operators.hpp"

namespace lockstep {

/// "attn.c_proj" and "weight" -> "attn.c_proj.weight"; "" and "weight" -> "weight".
std::string part_of(const std::string& name, const char* what);

struct LinearOptions {
  bool bias = true;
  WeightLayout layout = WeightLayout::out_in;
  std::optional<Init> weight_init = {}, bias_init = {};  ///< absent: torch.nn.Linear's, uniform in +-1/sqrt(in)
  std::string tied_to = {};  ///< full name of the parameter that the weight is; empty: its own
};

/// y = x W^T + b over the last dimension: [..., in] -> [..., out]. I and W are split.
struct LinearPart {
  std::string name;
  std::int64_t in = 0, out = 0;
  LinearOptions options = {};

  void describe(LayerDescription& description) const;
  at::Tensor operator()(LayerContext& context, const at::Tensor& x) const;
};

/// Rows of a table [count, width] at int64 indices of any shape: [...] -> [..., width]. I and W are split.
struct EmbeddingPart {
  std::string name;
  std::int64_t count = 0, width = 0;
  Init init = Init::normal(1.0);  ///< torch.nn.Embedding's

  void describe(LayerDescription& description) const;
  at::Tensor operator()(LayerContext& context, const at::Tensor& indices) const;
};

/// A factor and a summand per channel: weight (ones) and bias (zeros), float32; their gradients are computed in I.
struct AffinePart {
  std::string name;
  std::int64_t channels = 0;

  void describe(LayerDescription& description) const;
  at::Tensor weight(LayerContext& context) const { return context.leaf(part_of(name, "weight")); }
  at::Tensor bias(LayerContext& context) const { return context.leaf(part_of(name, "bias")); }
  /// Both, for layer and group norm of x: the CPU's kernels normalise bf16 with float32, CUDA's want one dtype.
  std::pair<at::Tensor, at::Tensor> beside(const at::Tensor& x, LayerContext& context) const;
};

/// Ba, Kiros, Hinton, "Layer Normalization" (2016), over the last dimension.
struct LayerNormPart {
  std::string name;
  std::int64_t width = 0;
  double epsilon = 1e-5;

  void describe(LayerDescription& description) const { affine().describe(description); }
  at::Tensor operator()(LayerContext& context, const at::Tensor& x) const;

 private:
  AffinePart affine() const { return {name, width}; }
};

/// Scaled dot-product attention over heads (Vaswani et al., "Attention Is All You Need", 2017). No parameters. With
/// dropout that LibTorch does not draw (random.hpp) its weights [rows, heads, length, length] are in memory.
struct AttentionPart {
  std::int64_t heads = 1;
  double dropout = 0;  ///< of the attention weights, in training
  bool causal = false;

  void describe(LayerDescription&) const {}
  /// q, k, v: [rows, length, width], the heads side by side in the last dimension; so is what comes out.
  at::Tensor operator()(LayerContext& context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const;
};

/// Convolutions, transposed ones too; see convolution() of operators.hpp for shapes.
struct ConvolutionPart {
  std::string name;
  std::int64_t in = 0, out = 0;
  std::vector<std::int64_t> kernel;
  ConvolutionArguments arguments = {};
  bool bias = true;

  /// Initial values as torch.nn's: uniform in +-1/sqrt(fan in), fan in = size(1) of the weight times the kernel.
  void describe(LayerDescription& description) const;
  at::Tensor operator()(LayerContext& context, const at::Tensor& x) const;
};

/// Outputs, and the parameters of all parts in order.
template <typename... Parts>
LayerDescription described(std::vector<EntrySpec> outputs, const Parts&... parts) {
  LayerDescription description;
  description.outputs = std::move(outputs);
  (parts.describe(description), ...);
  return description;
}

}  // namespace lockstep
