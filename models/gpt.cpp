// SPDX-License-Identifier: Apache-2.0
//
// GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019), with the parameter names and
// layouts of Hugging Face's GPT2LMHeadModel: Conv1D weights are [in, out], the head is tied to the token embedding. One
// layer per block, as the unit of partition: embed, h.0 ... h.(n-1), ln_f, head.
#include <ATen/ATen.h>

#include <cmath>

#include "models/registry.hpp"
#include "runtime/config/field.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/layer/parts.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

struct GptSizes {
  std::int64_t layers = 0, heads = 0, width = 0, context = 0, vocab = 0;
  double dropout = 0;
  bool tied = false;
};

/// What the parameters do not show; blocks of models of unlike depth cost the same.
void fields(FieldVisitor& visit, GptSizes& sizes) {
  visit("heads", value(sizes.heads, at_least<std::int64_t>(1)));
  visit("dropout", value(sizes.dropout, fraction_below_one()));
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
    if (tokens.dtype != at::kLong || tokens.sizes.size() != 2 || tokens.sizes[1] > config().context)
      throw ModelError(concat("a GPT of context ", config().context, " got ", to_string(tokens),
                              "; it expects int64 tokens [rows, length] with length <= ", config().context));
    expect_below(*this, tokens, config().vocab, "vocab");
    return described({{"", at::kFloat, {tokens.sizes[0], tokens.sizes[1], config().width}}}, tokens_, positions_);
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor& tokens = inputs[0];
    const at::Tensor positions = at::arange(tokens.size(1), tokens.options());
    const at::Tensor sum = tokens_(context, tokens) + positions_(context, positions);
    return {dropout(context, sum, config().dropout)};
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
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], config().width);
    return described({inputs[0]}, before_attention_, qkv_, attended_, before_mlp_, up_, down_);
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor attended = inputs[0] + attention(before_attention_(context, inputs[0]), context);
    const at::Tensor hidden = at::gelu(up_(context, before_mlp_(context, attended)), "tanh");
    return {attended + dropout(context, down_(context, hidden), config().dropout)};
  }

 private:
  at::Tensor attention(const at::Tensor& x, LayerContext& context) const {
    const std::vector<at::Tensor> qkv = qkv_(context, x).split(config().width, 2);
    const at::Tensor mixed = attention_(context, qkv[0], qkv[1], qkv[2]);
    return dropout(context, attended_(context, mixed), config().dropout);
  }

  LayerNormPart before_attention_;
  LinearPart qkv_;
  AttentionPart attention_;
  LinearPart attended_;
  LayerNormPart before_mlp_;
  LinearPart up_, down_;
};

class GptHead : public LayerOf<GptSizes> {
 public:
  explicit GptHead(const GptSizes& sizes)
      : LayerOf("gpt_head", sizes),
        logits_{"",
                sizes.width,
                sizes.vocab,
                {.bias = false,
                 .weight_init = Init::normal(kInit),
                 .tied_to = sizes.tied ? "transformer.wte.weight" : ""}} {}

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], config().width);
    EntrySpec logits = inputs[0];
    logits.sizes.back() = config().vocab;
    return described({logits}, logits_);
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override { return {logits_(context, inputs[0])}; }

 private:
  LinearPart logits_;
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
  if (sizes.width % sizes.heads != 0)
    throw section.error("heads", concat("got ", sizes.heads, ", which does not divide width ", sizes.width,
                                        "; every head takes an equal share of the width"));

  Model model{"gpt", {}};
  model.hub_config = hub_config(sizes);
  model.hub_prefix = "transformer.";
  model.hub_unused = {"*.attn.bias", "*.attn.masked_bias"};  // masks, which older versions saved
  model.layers.push_back({"embed", std::make_shared<GptEmbedding>(sizes), {"x"}, {"x"}, "transformer."});
  for (std::int64_t i = 0; i < sizes.layers; ++i)
    model.layers.push_back(
        {concat("h.", i), std::make_shared<GptBlock>(sizes), {"x"}, {"x"}, concat("transformer.h.", i, ".")});
  model.layers.push_back(
      {"ln_f", std::make_shared<LayerNorm>(sizes.width, kEpsilon), {"x"}, {"x"}, "transformer.ln_f."});
  model.layers.push_back({"head", std::make_shared<GptHead>(sizes), {"x"}, {"x"}, "lm_head."});
  return model;
}

}  // namespace lockstep
