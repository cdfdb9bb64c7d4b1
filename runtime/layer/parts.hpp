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
#include "runtime/layer/rotary.hpp"

namespace lockstep {

/// "attn.c_proj" and "weight" -> "attn.c_proj.weight"; "" and "weight" -> "weight".
std::string part_of(const std::string& name, const char* what);

struct LinearOptions {
  bool bias = true;
  WeightLayout layout = WeightLayout::out_in;
  std::optional<Init> weight_init = {}, bias_init = {};  ///< absent: torch.nn.Linear's, uniform in +-1/sqrt(in)
  std::string tied_to = {};  ///< full name of the parameter that the weight is; empty: its own
};

/// y = x W^T + b over the last dimension: [..., in] -> [..., out]. I and W are split. Where the model is adapted
/// (low_rank.hpp) with what its adapter adds.
struct LinearPart {
  std::string name;
  std::int64_t in = 0, out = 0;
  LinearOptions options = {};

  void describe(LayerDescription& description) const;
  at::Tensor operator()(LayerContext& context, const at::Tensor& x) const;
  std::string onnx(OnnxGraph& graph, const std::string& x) const;
};

/// Rows of a table [count, width] at int64 indices of any shape: [...] -> [..., width]. I and W are split.
struct EmbeddingPart {
  std::string name;
  std::int64_t count = 0, width = 0;
  Init init = Init::normal(1.0);  ///< torch.nn.Embedding's
  std::int64_t padding = -1;      ///< an index that teaches its row nothing (padding_idx); -1: none
  bool sparse = false;            ///< ParameterSpec::is_sparse

  void describe(LayerDescription& description) const;
  at::Tensor operator()(LayerContext& context, const at::Tensor& indices) const;
  std::string onnx(OnnxGraph& graph, const std::string& indices) const;
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
  std::string onnx(OnnxGraph& graph, const std::string& x) const;

 private:
  AffinePart affine() const { return {name, width}; }
};

/// Zhang, Sennrich, "Root Mean Square Layer Normalization" (2019), over the last dimension. One parameter, weight
/// (ones); its gradient is computed in I. bfloat16 is normalised in float32.
struct RmsNormPart {
  std::string name;
  std::int64_t width = 0;
  double epsilon = 1e-6;

  void describe(LayerDescription& description) const;
  at::Tensor operator()(LayerContext& context, const at::Tensor& x) const;
  std::string onnx(OnnxGraph& graph, const std::string& x) const;
};

/// What may be looked at, of each row; undefined: everything.
struct AttentionMask {
  at::Tensor keys = {};       ///< bool [rows, length]: these positions. A row of none looks at everything
  at::Tensor documents = {};  ///< int64 [rows, length]: from each position those with its number
};
/// The same in an ONNX graph; empty: everything.
struct OnnxAttentionMask {
  std::string keys = {}, documents = {};
};

/// Scaled dot-product attention over heads (Vaswani et al., "Attention Is All You Need", 2017). No parameters. With
/// dropout its weights, several tensors [rows, heads, length, length], are kept for the backward, or are computed again
/// there (LayerContext::recomputes_attention); without it LibTorch's fused attention keeps none.
struct AttentionPart {
  std::int64_t heads = 1;
  double dropout = 0;  ///< of the attention weights, in training
  bool causal = false;
  /// Ainslie et al., "GQA: Training Generalized Multi-Query Transformer Models" (2023): as many heads of k and v, each
  /// for heads / kv_heads heads of q; 0: as many as of q.
  std::int64_t kv_heads = 0;
  std::int64_t window = 0;                            ///< each position sees itself and window - 1 before it; 0: all
  std::optional<RotaryConfig> rotary = std::nullopt;  ///< turns q and k by their positions

  void describe(LayerDescription&) const {}
  /// q [rows, length, width], the heads side by side in the last dimension; so is what comes out. k, v: the same, or
  /// [rows, length, width / heads * kv_heads].
  at::Tensor operator()(LayerContext& context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const AttentionMask& mask = {}) const;
  /// `width`: of q.
  std::string onnx(OnnxGraph& graph, std::int64_t width, const std::string& q, const std::string& k,
                   const std::string& v, const OnnxAttentionMask& mask = {}) const;

 private:
  /// `p`: of the dropout.
  at::Tensor mixed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionMask& mask,
                   double p) const;
  /// bool, true where a query may look, to be laid over [rows, heads, queries, keys]; undefined: everywhere, or
  /// wherever `causal` lets it.
  at::Tensor allowed(const at::Tensor& q, std::int64_t length, const AttentionMask& mask) const;
  /// To be laid over [rows, heads of k, heads of q of each, queries, keys]; empty: everywhere.
  std::string onnx_allowed(OnnxGraph& graph, const std::string& length, const OnnxAttentionMask& mask) const;
};

/// Convolutions, transposed ones too; see convolution() of operators.hpp for shapes.
struct ConvolutionPart {
  std::string name;
  std::int64_t in = 0, out = 0;
  std::vector<std::int64_t> kernel;
  ConvolutionArguments arguments = {};
  bool bias = true;
  std::optional<Init> weight_init = {};

  /// Initial values as torch.nn's, unless told otherwise: uniform in +-1/sqrt(fan in), fan in = size(1) of the weight
  /// times the kernel.
  void describe(LayerDescription& description) const;
  at::Tensor operator()(LayerContext& context, const at::Tensor& x) const;
  std::string onnx(OnnxGraph& graph, const std::string& x) const;
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
