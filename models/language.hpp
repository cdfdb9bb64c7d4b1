// SPDX-License-Identifier: Apache-2.0
//
// What models of language share. Private to this folder.
#pragma once

#include "runtime/config/section.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/layer/parts.hpp"

namespace lockstep {

/// For describe(): int64 tokens [rows, length], at most `context` long and below `vocab`, else a ModelError. `family`:
/// "GPT".
void expect_tokens(const Layer& layer, const EntrySpec& tokens, const char* family, std::int64_t context,
                   std::int64_t vocab);

/// Throws ConfigError at `heads` unless they divide the width. `advice` ends the message.
void check_heads(const Section& section, std::int64_t width, std::int64_t heads, const std::string& advice = "");

/// The number of the document that each token is of, in a row of several that end in `end`: int64 [rows, length].
at::Tensor documents_of(const at::Tensor& tokens, std::int64_t end);
/// How far each token stands from the first one of its document: int64 [rows, length].
at::Tensor positions_in(const at::Tensor& documents);
/// The same two as nodes of an ONNX graph.
std::string onnx_documents_of(OnnxGraph& graph, const std::string& tokens, std::int64_t end);
std::string onnx_positions_in(OnnxGraph& graph, const std::string& documents);

/// [rows, length, width] -> logits [rows, length, vocab] without bias. `tied_to`: the token table that the weight is;
/// empty: it is its own.
class LanguageHead : public Layer {
 public:
  LanguageHead(std::string type, std::int64_t width, std::int64_t vocab, Init init, std::string tied_to);
  std::string type() const override { return type_; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  std::string type_;
  LinearPart logits_;
};

}  // namespace lockstep
