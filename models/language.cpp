// SPDX-License-Identifier: Apache-2.0
#include "models/language.hpp"

#include <ATen/ATen.h>

#include "runtime/layer/onnx_graph.hpp"

namespace lockstep {

void expect_tokens(const Layer& layer, const EntrySpec& tokens, const char* family, std::int64_t context,
                   std::int64_t vocab) {
  if (tokens.dtype != at::kLong || tokens.sizes.size() != 2 || tokens.sizes[1] > context)
    throw ModelError(concat("a ", family, " of context ", context, " got ", to_string(tokens),
                            "; it expects int64 tokens [rows, length] with length <= ", context));
  expect_below(layer, tokens, vocab, "vocab");
}

void check_heads(const Section& section, std::int64_t width, std::int64_t heads, const std::string& advice) {
  if (width % heads != 0)
    throw section.error("heads", concat("got ", heads, ", which does not divide width ", width,
                                        "; every head takes an equal share of the width", advice));
}

at::Tensor documents_of(const at::Tensor& tokens, std::int64_t end) {
  const at::Tensor ends = (tokens == end).to(at::kLong);
  return ends.cumsum(1) - ends;  // the token that ends a document is of it
}

at::Tensor positions_in(const at::Tensor& documents) {
  const at::Tensor places = at::arange(documents.size(1), documents.options()).expand_as(documents);
  const at::Tensor begins = at::zeros_like(documents);
  begins.narrow(1, 1, documents.size(1) - 1)
      .copy_(documents.narrow(1, 1, documents.size(1) - 1) != documents.narrow(1, 0, documents.size(1) - 1));
  return places - std::get<0>((places * begins).cummax(1));
}

std::string onnx_documents_of(OnnxGraph& graph, const std::string& tokens, std::int64_t end) {
  const std::string ends = graph.cast(graph.add("Equal", {tokens, graph.integer(end)}), at::kLong);
  return graph.add("CumSum", {ends, graph.integer(1)}, {{"exclusive", std::int64_t{1}}});
}

std::string onnx_positions_in(OnnxGraph& graph, const std::string& documents) {
  const std::string places = graph.range(graph.size_of(documents, 1));
  const std::string before = graph.add("Less", {places, graph.unsqueeze(places, {1})});
  const std::string same = graph.add("Equal", {graph.unsqueeze(documents, {2}), graph.unsqueeze(documents, {1})});
  const std::string counted = graph.cast(graph.add("And", {same, before}), at::kLong);
  return graph.add("ReduceSum", {counted, graph.integers({2})}, {{"keepdims", std::int64_t{0}}});
}

LanguageHead::LanguageHead(std::string type, std::int64_t width, std::int64_t vocab, Init init, std::string tied_to)
    : type_(std::move(type)),
      logits_{"", width, vocab, {.bias = false, .weight_init = init, .tied_to = std::move(tied_to)}} {}

LayerDescription LanguageHead::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_width(*this, inputs[0], logits_.in);
  EntrySpec logits = inputs[0];
  logits.sizes.back() = logits_.out;
  return described({logits}, logits_);
}

Tensors LanguageHead::forward(const Tensors& inputs, LayerContext& context) const {
  return {logits_(context, inputs[0])};
}

std::vector<std::string> LanguageHead::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  return {logits_.onnx(graph, inputs[0])};
}

}  // namespace lockstep
