// SPDX-License-Identifier: Apache-2.0
#include "tests/parity/family_cases.hpp"

#include <ATen/ATen.h>

#include "tests/parity/support.hpp"

namespace lockstep::test {
namespace {

constexpr std::int64_t kSamples = 21, kLength = 6, kVocab = 11;

class Changed : public Dataset {
 public:
  using Change = std::function<Tensors(Tensors)>;
  Changed(std::shared_ptr<const Dataset> data, std::vector<std::string> names, Change change)
      : data_(std::move(data)), names_(std::move(names)), change_(std::move(change)) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    std::vector<EntrySpec> entries;
    for (const at::Tensor& tensor : read({0})) {
      std::vector<std::int64_t> sizes = tensor.sizes().vec();
      sizes[0] = rows;
      entries.push_back({names_[entries.size()], tensor.scalar_type(), sizes, /*differentiable=*/false});
    }
    return entries;
  }
  std::int64_t size() const override { return data_->size(); }
  Tensors read(const std::vector<std::int64_t>& samples) const override { return change_(data_->read(samples)); }

 private:
  std::shared_ptr<const Dataset> data_;
  std::vector<std::string> names_;
  Change change_;
};

}  // namespace

DataSplits changed(const DataSplits& data, const std::vector<std::string>& names,
                   const std::function<Tensors(Tensors)>& change) {
  return {std::make_shared<Changed>(data.train, names, change), std::make_shared<Changed>(data.eval, names, change)};
}

DataSplits family_tokens(std::int64_t samples) {
  return token_data(samples, kLength, kVocab);
}

namespace {

/// Rows end in padding, token 0, of 0 to 4 of 6 tokens; a class per row.
Tensors padded(Tensors batch) {
  at::Tensor& x = batch[0];
  const at::Tensor length = kLength - x.select(1, 0).remainder(5);
  x = x.clamp_min(1).masked_fill(at::arange(kLength) >= length.unsqueeze(1), 0);
  batch.back() = x.sum(1).remainder(3);
  return batch;
}

DataSplits padded_rows() {
  return changed(family_tokens(), {"x", "targets"}, padded);
}

DataSplits padded_rows_with_types() {
  return changed(family_tokens(), {"x", "token_type_ids", "attention_mask", "targets"}, [](Tensors batch) {
    const Tensors rows = padded(std::move(batch));
    return Tensors{rows[0], rows[0].remainder(2), (rows[0] != 0).to(at::kLong), rows[1]};
  });
}

/// float32 [rows, length, 3] and a class per row.
DataSplits series() {
  return changed(family_tokens(), {"x", "targets"}, [](Tensors batch) {
    const at::Tensor x = batch[0].to(at::kFloat) / kVocab;
    return Tensors{at::stack({x, at::sin(3 * x), at::cos(5 * x)}, 2), batch[0].sum(1).remainder(3)};
  });
}

/// Six fields of 11 values, and two numbers.
DataSplits rows_of_fields() {
  return changed(family_tokens(), {"x", "numbers", "targets"}, [](Tensors batch) {
    const Tensors rows = padded(std::move(batch));
    return Tensors{rows[0], rows[0].narrow(1, 0, 2).to(at::kFloat) / kVocab, rows[1]};
  });
}

}  // namespace

std::vector<FamilyCase> family_cases() {
  const std::string llama = "type: llama, layers: 3, heads: 4, width: 16, hidden: 24, context: 6, vocab: 11";
  const std::string bert = "type: bert, layers: 2, heads: 2, width: 8, context: 6, vocab: 11, dropout: 0.1";
  return {
      {llama, family_tokens()},
      {llama + ", kv_heads: 2, tie_embeddings: true, attention_bias: qkv, dropout: 0.1, window: 3, rope_scaling: "
               "{rope_type: longrope, factor: 4, original_max_position_embeddings: 3, short_factor: [1, 1], "
               "long_factor: [1.5, 2]}",
       family_tokens()},
      {llama + ", head_width: 6, rope_scaling: {rope_type: llama3, factor: 4, original_max_position_embeddings: 3}",
       family_tokens()},
      {llama + ", document_end: 5, window: 4", family_tokens()},
      {"type: gpt, layers: 3, heads: 2, width: 8, context: 6, vocab: 11, document_end: 5, dropout: 0.1",
       family_tokens()},
      {bert, family_tokens()},
      {bert + ", classes: 3", padded_rows()},
      {bert + ", classes: 3, token_types: true, attention_mask: true", padded_rows_with_types()},
      {"type: lstm, vocab: 11, width: 8, layers: 2, dropout: 0.2, tie_embeddings: true", family_tokens()},
      {"type: gru, vocab: 11, width: 8, layers: 2, carry: true", family_tokens()},
      {"type: lstm, vocab: 11, embedding: 4, width: 8, layers: 2, outputs: 3, pad: 0, bidirectional: true",
       padded_rows()},
      {"type: gru, inputs: 3, width: 8, layers: 3, outputs: 3, bidirectional: true", series()},
      {"type: wide_deep, fields: [11, 11, 11, 11, 11, 11], embedding: 3, hidden: [8, 6], outputs: 3", padded_rows()},
      {"type: wide_deep, fields: [11, 12, 13, 14, 15, 16], embedding: 3, hidden: [5], numbers: 2, outputs: 3, dropout: "
       "0.1",
       rows_of_fields()},
      {"type: resnet, depth: 18, classes: 4, stem: small, channels: 4", image_data(kSamples, 3, 16, 4, false)},
      {"type: sequential, layers: ["
       "{type: embedding, count: 11, width: 8}, {type: positions, context: 6, width: 8}, "
       "{type: repeat, times: 2, layers: ["
       "{type: residual, layers: [{type: rms_norm, width: 8}, "
       "{type: self_attention, width: 8, heads: 2, causal: true, dropout: 0.1}]}, "
       "{type: residual, layers: [{type: linear, in: 8, out: 16}, {type: gelu}, {type: linear, in: 16, out: 8}]}]}, "
       "{type: lstm, in: 8, width: 8}, {type: linear, in: 8, out: 11}]",
       family_tokens()},
      {"type: gpt, layers: 2, heads: 2, width: 8, context: 6, vocab: 11, lora: {rank: 2, dropout: 0.1}",
       family_tokens()},
      {llama + ", kv_heads: 2, lora: {rank: 3, rank_stabilized: true, targets: [q_proj, v_proj]}", family_tokens()},
      {bert + ", classes: 3, lora: {rank: 2, targets: [query, value], modules_to_save: [classifier]}", padded_rows()}};
}

Model clicks(bool sparse) {
  return model_of(concat("type: wide_deep, fields: [11, 40, 11, 500, 11, 11], embedding: 3, hidden: [8], sparse: ",
                         sparse ? "true" : "false"));
}

DataSplits clicks_data() {
  return changed(family_tokens(), {"x", "targets"}, [](Tensors batch) {
    return Tensors{batch[0], (batch[0].to(at::kFloat) / 11).sum(1, /*keepdim=*/true)};
  });
}

}  // namespace lockstep::test
