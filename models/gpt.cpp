// SPDX-License-Identifier: Apache-2.0
//
// GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019), with the parameter names and
// layouts of Hugging Face's GPT2LMHeadModel: Conv1D weights are [in, out], the head is tied to the token embedding. One
// layer per block, as the unit of partition: embed, h.0 ... h.(n-1), ln_f, head.
#include <ATen/ATen.h>

#include <cmath>

#include "models/hub.hpp"
#include "models/language.hpp"
#include "models/registry.hpp"
#include "runtime/config/field.hpp"
#include "runtime/layer/onnx_graph.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

struct GptSizes {
  std::int64_t layers = 0, heads = 0, width = 0, context = 0, vocab = 0, document_end = -1;
  double dropout = 0;
  bool tied = false;
};

/// What the parameters do not show; blocks of models of unlike depth cost the same.
void fields(FieldVisitor& visit, GptSizes& sizes) {
  visit("heads", value(sizes.heads, at_least<std::int64_t>(1)));
  visit("dropout", value(sizes.dropout, fraction_below_one()));
  visit("document_end", value(sizes.document_end, at_least<std::int64_t>(-1)));
}

// Standard deviation of GPT-2's initial weights.
constexpr double kInit = 0.02;
constexpr double kEpsilon = 1e-5;

class GptEmbedding : public LayerOf<GptSizes> {
 public:
  explicit GptEmbedding(const GptSizes& sizes)
      : LayerOf("gpt_embedding", sizes),
        tokens_{"wte", sizes.vocab, sizes.width, Init::normal(kInit)},
        positions_{"wpe", sizes.context, sizes.width, Init::normal(kInit)} {}

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    const EntrySpec& tokens = inputs[0];
    expect_tokens(*this, tokens, "GPT", config().context, config().vocab);
    std::vector<EntrySpec> outputs = {{"", at::kFloat, {tokens.sizes[0], tokens.sizes[1], config().width}}};
    if (config().document_end >= 0) outputs.push_back({"", at::kLong, tokens.sizes, /*differentiable=*/false});
    return described(outputs, tokens_, positions_);
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor& tokens = inputs[0];
    Tensors outputs(1);
    at::Tensor positions = at::arange(tokens.size(1), tokens.options());
    if (config().document_end >= 0) {
      outputs.push_back(documents_of(tokens, config().document_end));
      positions = positions_in(outputs[1]);
    }
    outputs[0] = dropout(context, tokens_(context, tokens) + positions_(context, positions), config().dropout);
    return outputs;
  }

  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    const std::string& tokens = inputs[0];
    std::vector<std::string> outputs(1);
    std::string positions = graph.range(graph.size_of(tokens, 1));
    if (config().document_end >= 0) {
      outputs.push_back(onnx_documents_of(graph, tokens, config().document_end));
      positions = onnx_positions_in(graph, outputs[1]);
    }
    outputs[0] = graph.add("Add", {tokens_.onnx(graph, tokens), positions_.onnx(graph, positions)});
    return outputs;
  }

 private:
  EmbeddingPart tokens_, positions_;
};

/// Conv1D of Hugging Face's GPT-2.
LinearPart conv1d(const char* name, std::int64_t in, std::int64_t out, double deviation) {
  return {name,
          in,
          out,
          {.layout = WeightLayout::in_out, .weight_init = Init::normal(deviation), .bias_init = Init::zeros()}};
}

// Residual branches start smaller the deeper the model (GPT-2, section 2.3).
double residual_init(const GptSizes& sizes) {
  return kInit / std::sqrt(2.0 * static_cast<double>(sizes.layers));
}

class GptBlock : public LayerOf<GptSizes> {
 public:
  explicit GptBlock(const GptSizes& sizes)
      : LayerOf("gpt_block", sizes),
        before_attention_{"ln_1", sizes.width, kEpsilon},
        qkv_(conv1d("attn.c_attn", sizes.width, 3 * sizes.width, kInit)),
        attention_{sizes.heads, sizes.dropout, /*causal=*/true},
        attended_(conv1d("attn.c_proj", sizes.width, sizes.width, residual_init(sizes))),
        before_mlp_{"ln_2", sizes.width, kEpsilon},
        up_(conv1d("mlp.c_fc", sizes.width, 4 * sizes.width, kInit)),
        down_(conv1d("mlp.c_proj", 4 * sizes.width, sizes.width, residual_init(sizes))) {}

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, config().document_end >= 0 ? 2 : 1);
    expect_width(*this, inputs[0], config().width);
    return described(inputs, before_attention_, qkv_, attended_, before_mlp_, up_, down_);
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const AttentionMask mask{.documents = inputs.size() > 1 ? inputs[1] : at::Tensor()};
    const at::Tensor attended = inputs[0] + attention(before_attention_(context, inputs[0]), mask, context);
    const at::Tensor hidden = at::gelu(up_(context, before_mlp_(context, attended)), "tanh");
    Tensors outputs = inputs;
    outputs[0] = attended + dropout(context, down_(context, hidden), config().dropout);
    return outputs;
  }

  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    const std::int64_t width = config().width;
    const OnnxAttentionMask mask{.documents = inputs.size() > 1 ? inputs[1] : ""};
    const OnnxGraph::Names qkv =
        graph.split(qkv_.onnx(graph, before_attention_.onnx(graph, inputs[0])), {width, width, width}, 2);
    const std::string mixed = attention_.onnx(graph, width, qkv[0], qkv[1], qkv[2], mask);
    const std::string attended = graph.add("Add", {inputs[0], attended_.onnx(graph, mixed)});
    const std::string hidden = onnx_gelu_tanh(graph, up_.onnx(graph, before_mlp_.onnx(graph, attended)));
    std::vector<std::string> outputs = inputs;
    outputs[0] = graph.add("Add", {attended, down_.onnx(graph, hidden)});
    return outputs;
  }

 private:
  at::Tensor attention(const at::Tensor& x, const AttentionMask& mask, LayerContext& context) const {
    const std::vector<at::Tensor> qkv = qkv_(context, x).split(config().width, 2);
    const at::Tensor mixed = attention_(context, qkv[0], qkv[1], qkv[2], mask);
    return dropout(context, attended_(context, mixed), config().dropout);
  }

  LayerNormPart before_attention_;
  LinearPart qkv_;
  AttentionPart attention_;
  LinearPart attended_;
  LayerNormPart before_mlp_;
  LinearPart up_, down_;
};

/// What GPT2Config of Hugging Face's transformers needs to build this model. Its default token ids are those of a
/// vocabulary of 50257.
std::string hub_config(const GptSizes& sizes) {
  const std::string end_token = sizes.vocab > 50256 ? "50256" : "null";
  return concat(
      "{\n  \"architectures\": [\"GPT2LMHeadModel\"],\n  \"model_type\": \"gpt2\",\n  \"n_layer\": ", sizes.layers,
      ",\n  \"n_head\": ", sizes.heads, ",\n  \"n_embd\": ", sizes.width, ",\n  \"n_positions\": ", sizes.context,
      ",\n  \"vocab_size\": ", sizes.vocab, ",\n  \"activation_function\": \"gelu_new\",\n",
      "  \"layer_norm_epsilon\": ", kEpsilon, ",\n  \"initializer_range\": ", kInit,
      ",\n  \"embd_pdrop\": ", sizes.dropout, ",\n  \"attn_pdrop\": ", sizes.dropout,
      ",\n  \"resid_pdrop\": ", sizes.dropout, ",\n  \"tie_word_embeddings\": ", sizes.tied ? "true" : "false",
      ",\n  \"bos_token_id\": ", end_token, ",\n  \"eos_token_id\": ", end_token, "\n}\n");
}

}  // namespace

std::string gpt_from_hub(const HubConfig& config) {
  for (const char* key : {"scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"})
    config.expect(key, false);
  config.expect("scale_attn_weights", true);
  config.expect("activation_function", std::string("gelu_new"));
  config.expect("layer_norm_epsilon", kEpsilon);
  const auto width = config.get<std::int64_t>("n_embd");
  config.expect("n_inner", 4 * width);
  const double dropout = config.one_rate("resid_pdrop", {"embd_pdrop", "attn_pdrop"});
  const nlohmann::ordered_json keys = {{"layers", config.get<std::int64_t>("n_layer")},
                                       {"heads", config.get<std::int64_t>("n_head")},
                                       {"width", width},
                                       {"context", config.get<std::int64_t>("n_positions")},
                                       {"vocab", config.get<std::int64_t>("vocab_size")},
                                       {"dropout", dropout},
                                       {"tie_embeddings", config.get("tie_word_embeddings", true)}};
  return keys.dump();
}

Model make_gpt(const Section& section) {
  const auto positive = between<std::int64_t>(1, kMostSize);
  GptSizes sizes;
  sizes.layers = section.get<std::int64_t>("layers", between<std::int64_t>(1, kMostLayers));
  sizes.heads = section.get<std::int64_t>("heads", positive);
  sizes.width = section.get<std::int64_t>("width", positive);
  sizes.context = section.get<std::int64_t>("context", positive);
  sizes.vocab = section.get<std::int64_t>("vocab", 256, positive);
  sizes.dropout = section.get<double>("dropout", 0.0, fraction_below_one());
  sizes.tied = section.get<bool>("tie_embeddings", true);
  sizes.document_end = section.get<std::int64_t>("document_end", -1, between<std::int64_t>(-1, kMostSize));
  check_heads(section, sizes.width, sizes.heads);

  Model model{"gpt", {}};
  model.hub_config = hub_config(sizes);
  model.hub_prefix = "transformer.";
  model.hub_unused = {"*.attn.bias", "*.attn.masked_bias"};  // masks, which older versions saved
  std::vector<std::string> handed_on = {"x"};
  if (sizes.document_end >= 0) handed_on.emplace_back("documents");
  model.layers.push_back({"embed", std::make_shared<GptEmbedding>(sizes), {"x"}, handed_on, "transformer."});
  for (std::int64_t i = 0; i < sizes.layers; ++i)
    model.layers.push_back(
        {concat("h.", i), std::make_shared<GptBlock>(sizes), handed_on, handed_on, concat("transformer.h.", i, ".")});
  model.layers.push_back(
      {"ln_f", std::make_shared<LayerNorm>(sizes.width, kEpsilon), {"x"}, {"x"}, "transformer.ln_f."});
  const auto head = std::make_shared<LanguageHead>("gpt_head", sizes.width, sizes.vocab, Init::normal(kInit),
                                                   sizes.tied ? "transformer.wte.weight" : "");
  model.layers.push_back({"head", head, {"x"}, {"x"}, "lm_head."});
  return model;
}

}  // namespace lockstep
