// SPDX-License-Identifier: Apache-2.0
#include "models/language.hpp"

#include <ATen/ATen.h>

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

}  // namespace lockstep
