// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/parts.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "runtime/layer/low_rank.hpp"
#include "runtime/layer/onnx_graph.hpp"
#include "runtime/layer/random.hpp"
#include "runtime/layer/run_again.hpp"

namespace lockstep {
namespace {

/// Of queries and keys: true where a query would look ahead.
at::Tensor later(const at::Tensor& q, std::int64_t length) {
  return at::ones({q.size(-2), length}, q.options().dtype(at::kBool)).triu(1);
}

/// What at::scaled_dot_product_attention computes, whose dropout takes no generator, operator by operator.
at::Tensor attention_in_steps(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& allowed,
                              double p, bool causal) {
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(-1)));
  at::Tensor scores = at::matmul(q * scale, k.transpose(-2, -1));
  if (causal || allowed.defined()) {
    const at::Tensor hidden = allowed.defined() ? allowed.logical_not() : later(q, k.size(-2));
    scores.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  }
  return at::matmul(dropout(at::softmax(scores, -1), p), v);
}

}  // namespace

std::string part_of(const std::string& name, const char* what) {
  return name.empty() ? what : name + "." + what;
}

void LinearPart::describe(LayerDescription& description) const {
  const Init usual = Init::uniform(1.0 / std::sqrt(static_cast<double>(in)));
  const std::vector<std::int64_t> sizes =
      options.layout == WeightLayout::out_in ? std::vector{out, in} : std::vector{in, out};
  description.parameters.push_back({part_of(name, "weight"), sizes, options.weight_init.value_or(usual),
                                    options.tied_to, options.layout, /*is_cast=*/true});
  if (options.bias)
    description.parameters.push_back(
        {part_of(name, "bias"), {out}, options.bias_init.value_or(usual), "", {}, /*is_cast=*/true});
}

at::Tensor LinearPart::operator()(LayerContext& context, const at::Tensor& x) const {
  const at::Tensor y =
      linear(context, x, part_of(name, "weight"), options.bias ? part_of(name, "bias") : "", options.layout);
  const LowRank* adapter = context.adapter(name);
  return adapter ? y + adapter->output(context, x, name) : y;
}

std::string LinearPart::onnx(OnnxGraph& graph, const std::string& x) const {
  const std::string y =
      onnx_linear(graph, x, part_of(name, "weight"), options.bias ? part_of(name, "bias") : "", options.layout);
  const LowRank* adapter = graph.adapter(name);
  return adapter ? graph.add("Add", {y, adapter->onnx(graph, x, name)}) : y;
}

void EmbeddingPart::describe(LayerDescription& description) const {
  description.parameters.push_back({part_of(name, "weight"), {count, width}, init, "", {}, /*is_cast=*/true});
  description.parameters.back().is_sparse = sparse;
}

at::Tensor EmbeddingPart::operator()(LayerContext& context, const at::Tensor& indices) const {
  return embedding(context, indices, part_of(name, "weight"), padding);
}

std::string EmbeddingPart::onnx(OnnxGraph& graph, const std::string& indices) const {
  return graph.add("Gather", {graph.parameter(part_of(name, "weight")), indices});
}

void AffinePart::describe(LayerDescription& description) const {
  description.parameters.push_back({part_of(name, "weight"), {channels}, Init::ones(), ""});
  description.parameters.push_back({part_of(name, "bias"), {channels}, Init::zeros(), ""});
}

std::pair<at::Tensor, at::Tensor> AffinePart::beside(const at::Tensor& x, LayerContext& context) const {
  const at::Tensor scale = weight(context), shift = bias(context);
  if (x.device().is_cpu()) return {scale, shift};
  return {scale.to(x.scalar_type()), shift.to(x.scalar_type())};
}

at::Tensor LayerNormPart::operator()(LayerContext& context, const at::Tensor& x) const {
  const auto [weight, bias] = affine().beside(x, context);
  return at::layer_norm(x, {width}, weight, bias, epsilon);
}

std::string LayerNormPart::onnx(OnnxGraph& graph, const std::string& x) const {
  return graph.add("LayerNormalization",
                   {x, graph.parameter(part_of(name, "weight")), graph.parameter(part_of(name, "bias"))},
                   {{"epsilon", epsilon}});
}

void RmsNormPart::describe(LayerDescription& description) const {
  description.parameters.push_back({part_of(name, "weight"), {width}, Init::ones(), ""});
}

at::Tensor RmsNormPart::operator()(LayerContext& context, const at::Tensor& x) const {
  return at::rms_norm(x, {width}, context.leaf(part_of(name, "weight"), x.scalar_type()), epsilon);
}

std::string RmsNormPart::onnx(OnnxGraph& graph, const std::string& x) const {
  const std::string squares = graph.add("ReduceMean", {graph.add("Mul", {x, x})}, {{"axes", OnnxGraph::Sizes{-1}}});
  const std::string root = graph.add("Sqrt", {graph.add("Add", {squares, graph.number(epsilon)})});
  return graph.add("Mul", {graph.add("Div", {x, root}), graph.parameter(part_of(name, "weight"))});
}

at::Tensor AttentionPart::allowed(const at::Tensor& q, std::int64_t length, const AttentionMask& mask) const {
  at::Tensor allowed;
  const auto restrict = [&allowed](const at::Tensor& to) {
    allowed = allowed.defined() ? allowed.logical_and(to) : to;
  };
  const bool masked = mask.keys.defined() || mask.documents.defined();
  if (causal && (masked || (window > 0 && window < length))) {
    const at::Tensor before = later(q, length).logical_not();
    restrict(window > 0 ? before.triu(1 - window) : before);
  }
  // Who may look at nothing would get 0/0: such a row is one that nobody reads.
  if (mask.keys.defined())
    restrict(mask.keys.logical_or(mask.keys.any(-1, /*keepdim=*/true).logical_not()).unsqueeze(1).unsqueeze(1));
  if (mask.documents.defined()) restrict((mask.documents.unsqueeze(2) == mask.documents.unsqueeze(1)).unsqueeze(1));
  return allowed;
}

at::Tensor AttentionPart::mixed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionMask& mask, double p) const {
  const std::int64_t rows = q.size(0), width = q.size(2), each = width / heads;
  const std::int64_t shared = kv_heads == 0 ? 1 : heads / kv_heads;  // so many heads of q have one of k and v
  const auto by_head = [&](const at::Tensor& x) {
    return x.view({rows, x.size(1), x.size(2) / each, each}).transpose(1, 2);
  };
  const auto repeated = [&](const at::Tensor& x) {
    if (shared == 1) return x;
    return x.unsqueeze(2).expand({rows, kv_heads, shared, x.size(2), each}).reshape({rows, heads, x.size(2), each});
  };
  at::Tensor queries = by_head(q), others = by_head(k);
  if (rotary) {
    const RotaryTable table = rotary_table(*rotary, each, q.size(1), q);
    queries = rotated(queries, table);
    others = rotated(others, table);
  }
  others = repeated(others);
  const at::Tensor values = repeated(by_head(v)), visible = allowed(queries, k.size(1), mask);
  const at::Tensor by_heads =
      p > 0 && !libtorch_draws_for(q)
          ? attention_in_steps(queries, others, values, visible, p, causal)
          : at::scaled_dot_product_attention(queries, others, values,
                                             visible.defined() ? std::optional<at::Tensor>(visible) : std::nullopt, p,
                                             causal && !visible.defined());
  return by_heads.transpose(1, 2).reshape({rows, q.size(1), width});
}

std::string AttentionPart::onnx_allowed(OnnxGraph& graph, const std::string& length,
                                        const OnnxAttentionMask& mask) const {
  std::string allowed;
  const auto restrict = [&](const std::string& to) {
    allowed = allowed.empty() ? to : graph.add("And", {allowed, to});
  };
  if (causal) {
    const std::string keys = graph.range(length), queries = graph.unsqueeze(keys, {1});
    restrict(graph.add("LessOrEqual", {keys, queries}));
    if (window > 0) restrict(graph.add("Greater", {keys, graph.add("Sub", {queries, graph.integer(window)})}));
  }
  if (!mask.keys.empty()) {
    const std::string any = graph.add("ReduceMax", {graph.cast(mask.keys, at::kInt)}, {{"axes", OnnxGraph::Sizes{-1}}});
    const std::string none = graph.add("Not", {graph.cast(any, at::kBool)});
    restrict(graph.unsqueeze(graph.add("Or", {mask.keys, none}), {1, 2, 3}));
  }
  if (!mask.documents.empty()) {
    const std::string same =
        graph.add("Equal", {graph.unsqueeze(mask.documents, {2}), graph.unsqueeze(mask.documents, {1})});
    restrict(graph.unsqueeze(same, {1, 2}));
  }
  return allowed;
}

std::string AttentionPart::onnx(OnnxGraph& graph, std::int64_t width, const std::string& q, const std::string& k,
                                const std::string& v, const OnnxAttentionMask& mask) const {
  const std::int64_t each = width / heads, groups = kv_heads == 0 ? heads : kv_heads, shared = heads / groups;
  // [rows, groups, heads of q of each, length, each]; k and v have one there.
  const auto by_head = [&](const std::string& x, std::int64_t in_group) {
    return graph.permute(graph.reshape(x, {0, 0, groups, in_group, each}), {0, 2, 3, 1, 4});
  };
  const std::string length = graph.size_of(q, 1);
  std::string queries = by_head(q, shared), others = by_head(k, 1);
  if (rotary) {
    const OnnxRotaryTable table = onnx_rotary_table(graph, *rotary, each, length);
    queries = onnx_rotated(graph, queries, each, table);
    others = onnx_rotated(graph, others, each, table);
  }
  queries = graph.add("Mul", {queries, graph.number(1 / std::sqrt(static_cast<double>(each)))});
  std::string scores = graph.add("MatMul", {queries, graph.permute(others, {0, 1, 2, 4, 3})});
  if (const std::string visible = onnx_allowed(graph, length, mask); !visible.empty())
    scores = graph.add("Where", {visible, scores, graph.number(-std::numeric_limits<double>::infinity())});
  const std::string weights = graph.add("Softmax", {scores}, {{"axis", std::int64_t{-1}}});
  const std::string mixed = graph.add("MatMul", {weights, by_head(v, 1)});
  return graph.reshape(graph.permute(mixed, {0, 3, 1, 2, 4}), {0, 0, width});
}

at::Tensor AttentionPart::operator()(LayerContext& context, const at::Tensor& q, const at::Tensor& k,
                                     const at::Tensor& v, const AttentionMask& mask) const {
  const bool in_graph = q.requires_grad() || k.requires_grad() || v.requires_grad();
  // The scores and the mixing, of a causal one half of each; two gradients of either.
  const double multiply_adds = static_cast<double>(q.numel()) * static_cast<double>(k.size(1));
  context.count_products(causal ? multiply_adds : 2 * multiply_adds, in_graph ? 2 : 0);
  const double p = context.training() ? dropout : 0.0;
  if (!in_graph || p == 0 || !context.recomputes_attention()) return mixed(q, k, v, mask, p);
  return run_again_in_backward({q, k, v}, [part = *this, mask, p](const Tensors& inputs) {
    return part.mixed(inputs[0], inputs[1], inputs[2], mask, p);
  });
}

void ConvolutionPart::describe(LayerDescription& description) const {
  std::vector<std::int64_t> sizes =
      arguments.transposed ? std::vector{in, out / arguments.groups} : std::vector{out, in / arguments.groups};
  sizes.insert(sizes.end(), kernel.begin(), kernel.end());
  auto fan_in = static_cast<double>(sizes[1]);  // what overflows an integer is refused later, by name
  for (const std::int64_t size : kernel) fan_in *= static_cast<double>(size);
  const Init init = Init::uniform(1.0 / std::sqrt(fan_in));
  description.parameters.push_back({part_of(name, "weight"), sizes, weight_init.value_or(init), ""});
  if (bias) description.parameters.push_back({part_of(name, "bias"), {out}, init, ""});
}

at::Tensor ConvolutionPart::operator()(LayerContext& context, const at::Tensor& x) const {
  return convolution(context, x, part_of(name, "weight"), bias ? part_of(name, "bias") : "", arguments);
}

std::string ConvolutionPart::onnx(OnnxGraph& graph, const std::string& x) const {
  OnnxGraph::Sizes pads = arguments.padding;
  pads.insert(pads.end(), arguments.padding.begin(), arguments.padding.end());
  OnnxGraph::Attributes attributes = {{"kernel_shape", kernel},
                                      {"strides", arguments.stride},
                                      {"pads", pads},
                                      {"dilations", arguments.dilation},
                                      {"group", arguments.groups}};
  if (arguments.transposed) attributes.emplace_back("output_padding", arguments.output_padding);
  OnnxGraph::Names inputs = {x, graph.parameter(part_of(name, "weight"))};
  if (bias) inputs.push_back(graph.parameter(part_of(name, "bias")));
  return graph.add(arguments.transposed ? "ConvTranspose" : "Conv", inputs, attributes);
}

}  // namespace lockstep
