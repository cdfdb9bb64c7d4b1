// SPDX-License-Identifier: Apache-2.0
//
// Wide & Deep (Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016): rows of categories, one per field,
// to the logit of a click. Each value of a field has an embedding, which an MLP reads beside those of the other fields
// (deep), and a weight of its own, which are added up (wide); the logits are the sum of both.
//
//   "x" -> embed -> "x" -> deep.0 -> act.0 -> drop.0 -> ... -> out -> "x" -> sum -> "x"
//            \------------------------ "wide" --------------------------------/
#include <ATen/ATen.h>

#include <algorithm>

#include "models/registry.hpp"
#include "runtime/config/field.hpp"
#include "runtime/layer/onnx_graph.hpp"

namespace lockstep {
namespace {

struct WideDeepSizes {
  std::vector<std::int64_t> fields, hidden = {64, 32};
  std::int64_t embedding = 16, numbers = 0, outputs = 1;
  bool sparse = false;
  double dropout = 0;
};

/// What the parameters do not show.
void fields(FieldVisitor& visit, WideDeepSizes& sizes) {
  visit("numbers", value(sizes.numbers, between<std::int64_t>(0, kMostSize)));
  visit("sparse", value(sizes.sparse));
}

void keys_of_model(FieldVisitor& visit, WideDeepSizes& sizes) {
  const auto positive = between<std::int64_t>(1, kMostSize);
  visit("fields", list(sizes.fields, positive, "how many values each field has, such as [1000, 50]").required());
  visit("embedding", value(sizes.embedding, positive));
  visit("numbers", value(sizes.numbers, between<std::int64_t>(0, kMostSize)));
  visit("hidden", list(sizes.hidden, positive));
  visit("outputs", value(sizes.outputs, positive));
  visit("dropout", value(sizes.dropout, fraction_below_one()));
  visit("sparse", value(sizes.sparse));
}

constexpr double kInit = 0.01;  // standard deviation of the embeddings

/// x int64 [rows, fields] and, where there are any, numbers [rows, numbers] -> what the MLP reads [rows, fields *
/// embedding + numbers], and the wide part [rows, outputs].
class FieldEmbedding : public LayerOf<WideDeepSizes> {
 public:
  explicit FieldEmbedding(const WideDeepSizes& sizes) : LayerOf("field_embedding", sizes) {
    for (std::size_t f = 0; f < sizes.fields.size(); ++f) {
      deep_.push_back(
          {concat("embeddings.", f), sizes.fields[f], sizes.embedding, Init::normal(kInit), -1, sizes.sparse});
      wide_.push_back({concat("wide.", f), sizes.fields[f], sizes.outputs, Init::zeros(), -1, sizes.sparse});
    }
  }

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, config().numbers > 0 ? 2 : 1);
    const EntrySpec& x = inputs[0];
    const auto count = static_cast<std::int64_t>(deep_.size());
    if (x.dtype != at::kLong || x.sizes.size() != 2 || x.sizes[1] != count)
      throw ModelError(
          concat("a model of ", count, " fields got ", to_string(x), "; it expects int64 [rows, ", count, "]"));
    expect_below(*this, x, *std::max_element(config().fields.begin(), config().fields.end()), "largest field");
    if (config().numbers > 0) expect_width(*this, inputs[1], config().numbers);
    const std::int64_t rows = x.sizes[0];
    LayerDescription description = described({{"", at::kFloat, {rows, count * config().embedding + config().numbers}},
                                              {"", at::kFloat, {rows, config().outputs}}});
    for (const EmbeddingPart& table : deep_) table.describe(description);
    for (const EmbeddingPart& table : wide_) table.describe(description);
    return description;
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    std::vector<at::Tensor> deep;
    at::Tensor wide;
    for (std::size_t f = 0; f < deep_.size(); ++f) {
      const at::Tensor values = inputs[0].select(1, static_cast<std::int64_t>(f)).contiguous();
      deep.push_back(deep_[f](context, values));
      const at::Tensor weights = wide_[f](context, values);
      wide = f == 0 ? weights : wide + weights;
    }
    if (inputs.size() > 1) deep.push_back(inputs[1]);
    return {at::cat(deep, 1), wide};
  }

  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    std::vector<std::string> deep;
    std::string wide;
    for (std::size_t f = 0; f < deep_.size(); ++f) {
      const std::string field = graph.integer(static_cast<std::int64_t>(f));
      const std::string values = graph.add("Gather", {inputs[0], field}, {{"axis", std::int64_t{1}}});
      deep.push_back(deep_[f].onnx(graph, values));
      const std::string weights = wide_[f].onnx(graph, values);
      wide = f == 0 ? weights : graph.add("Add", {wide, weights});
    }
    if (inputs.size() > 1) deep.push_back(inputs[1]);
    return {graph.add("Concat", deep, {{"axis", std::int64_t{1}}}), wide};
  }

 private:
  std::vector<EmbeddingPart> deep_, wide_;
};

}  // namespace

Model make_wide_deep(const Section& section) {
  WideDeepSizes sizes;
  read_fields(section, [&sizes](FieldVisitor& visit) { keys_of_model(visit, sizes); });
  Model model{"wide_deep", {}};
  std::vector<std::string> read = {"x"};
  if (sizes.numbers > 0) read.emplace_back("numbers");
  model.layers.push_back({"embed", std::make_shared<FieldEmbedding>(sizes), read, {"x", "wide"}});
  std::int64_t in = static_cast<std::int64_t>(sizes.fields.size()) * sizes.embedding + sizes.numbers;
  for (std::size_t i = 0; i < sizes.hidden.size(); ++i) {
    model.layers.push_back({concat("deep.", i), std::make_shared<Linear>(in, sizes.hidden[i])});
    model.layers.push_back({concat("act.", i), std::make_shared<Activation>("relu")});
    if (sizes.dropout > 0) model.layers.push_back({concat("drop.", i), std::make_shared<Dropout>(sizes.dropout)});
    in = sizes.hidden[i];
  }
  model.layers.push_back({"out", std::make_shared<Linear>(in, sizes.outputs)});
  model.layers.push_back({"sum", std::make_shared<Add>(), {"x", "wide"}, {"x"}});
  return model;
}

}  // namespace lockstep
