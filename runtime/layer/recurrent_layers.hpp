// SPDX-License-Identifier: Apache-2.0
//
// Layers along time, of entries [rows, length, ...]: the first dimension behind the rows is time.
#pragma once

#include "runtime/layer/layers.hpp"

namespace lockstep {

enum class RecurrentKind : std::uint8_t { lstm, gru };
constexpr const char* to_string(RecurrentKind kind) {
  switch (kind) {
    case RecurrentKind::lstm: return "lstm";
    case RecurrentKind::gru: return "gru";
  }
  return nullptr;
}

struct RecurrentConfig {
  RecurrentKind kind = RecurrentKind::lstm;  ///< of the type, no key
  std::int64_t in = 0, width = 0;
  bool bidirectional = false;
  bool carry = false;      ///< goes on, in training, where the same row of the batch before has ended
  bool last_only = false;  ///< puts out what it has at the end of each row: [rows, width]
  int number = 0;          ///< of the parameters' names: weight_ih_l0
};
void fields(FieldVisitor& visit, RecurrentConfig& config);

/// One layer of torch.nn.LSTM (Hochreiter, Schmidhuber, "Long Short-Term Memory", 1997) or torch.nn.GRU (Cho et al.,
/// "Learning Phrase Representations using RNN Encoder-Decoder", 2014), with its names, layouts and initial values
/// (uniform in +-1/sqrt(width)): weight_ih_l0 [gates width, in], weight_hh_l0 [gates width, width], bias_ih_l0,
/// bias_hh_l0, and "_reverse" of each.
///
/// x [rows, length, in] -> [rows, length, width], both directions side by side: 2 width. With a second input, int64
/// lengths [rows] of 1 or more, what lies behind a row's length is not read, and what is put out there is 0: as
/// pack_padded_sequence has it. `last_only`: the last one of each row, of both directions the last that each has
/// computed. Gradients are all computed in I.
///
/// With `carry` the states `h_l0` and, of an LSTM, `c_l0` go on from step to step, without gradient (truncated
/// backpropagation through time); an evaluation starts every batch from zeros.
class Recurrent : public LayerOf<RecurrentConfig> {
 public:
  /// Throws ModelError when `carry` is asked of one that also reads backwards.
  explicit Recurrent(const RecurrentConfig& config);
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  struct Direction;
  Direction run(const at::Tensor& x, const Tensors& parameters, LayerContext& context, bool both) const;
  std::vector<std::string> parameter_names(bool reverse) const;
  std::string state_name(const char* what) const { return concat(what, "_l", config().number); }
  std::int64_t gates() const { return config().kind == RecurrentKind::lstm ? 4 : 3; }
};

struct LengthsConfig {
  std::int64_t pad = 0;
};
void fields(FieldVisitor& visit, LengthsConfig& config);

/// How long each row is: int64 tokens [rows, length] -> int64 [rows], up to the last token that is not `pad`; 1 where
/// all are.
class Lengths : public LayerOf<LengthsConfig> {
 public:
  explicit Lengths(const LengthsConfig& config) : LayerOf("lengths", config) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;
};

struct PositionsConfig {
  std::int64_t context = 0, width = 0;
};
void fields(FieldVisitor& visit, PositionsConfig& config);

/// Adds a learned row to each position: [rows, length <= context, width]. Parameter weight [context, width], normal
/// with standard deviation 0.02.
class Positions : public LayerOf<PositionsConfig> {
 public:
  explicit Positions(const PositionsConfig& config)
      : LayerOf("positions", config), part_{"", config.context, config.width, Init::normal(0.02)} {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  EmbeddingPart part_;
};

struct SelfAttentionConfig {
  std::int64_t width = 0, heads = 0;
  bool causal = false;
  double dropout = 0;
};
void fields(FieldVisitor& visit, SelfAttentionConfig& config);

/// torch.nn.MultiheadAttention of an entry with itself: [rows, length, width]. Parameters in_proj_weight [3 width,
/// width], in_proj_bias, out_proj.weight, out_proj.bias, with its initial values.
class SelfAttention : public LayerOf<SelfAttentionConfig> {
 public:
  /// Throws ModelError when the heads do not divide the width.
  explicit SelfAttention(const SelfAttentionConfig& config);
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  AttentionPart attention_;
  LinearPart out_;
};

}  // namespace lockstep
