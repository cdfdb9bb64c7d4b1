// SPDX-License-Identifier: Apache-2.0
//
// GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019), with the parameter names and
// layouts of Hugging Face's GPT2LMHeadModel: Conv1D weights are [in, out], the head is tied to the token embedding. One
// layer per block, as the unit of partition: embed, h.0 ... h.(n-1), ln_f, head.
#include <ATen/ATen.h>

#include <cmath>

#include "models/registry.hpp"
#include "runtime/layer/layers.hpp"

namespace lockstep {
namespace {

struct GptSizes {
  std::int64_t layers, heads, width, context, vocab;
  double dropout;
  bool tied;
};

// Standard deviation of GPT-2's initial weights.
constexpr double kInit = 0.02;
constexpr double kEpsilon = 1e-5;

class GptEmbedding : public Layer {
 public:
  explicit GptEmbedding(const GptSizes& sizes) : sizes_(sizes) {}
  std::string type() const override { return "gpt_embedding"; }
  std::string options() const override { return concat("dropout ", sizes_.dropout); }

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    const EntrySpec& tokens = inputs[0];
    if (tokens.dtype != at::kLong || tokens.sizes.size() != 2 || tokens.sizes[1] > sizes_.context)
      throw ModelError(concat("a GPT of context ", sizes_.context, " got ", to_string(tokens),
                              "; it expects int64 tokens [rows, length] with length <= ", sizes_.context));
    expect_below(*this, tokens, sizes_.vocab, "vocab");
    LayerDescription description;
    description.outputs = {{"", at::kFloat, {tokens.sizes[0], tokens.sizes[1], sizes_.width}}};
    description.parameters = {{"wte.weight", {sizes_.vocab, sizes_.width}, Init::normal(kInit), ""},
                              {"wpe.weight", {sizes_.context, sizes_.width}, Init::normal(kInit), ""}};
    return description;
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor& tokens = inputs[0];
    const at::Tensor positions = at::arange(tokens.size(1), tokens.options());
    const at::Tensor sum = embedding(context, tokens, "wte.weight") + embedding(context, positions, "wpe.weight");
    return {at::dropout(sum, sizes_.dropout, context.training())};
  }

 private:
  GptSizes sizes_;
};

class GptBlock : public Layer {
 public:
  explicit GptBlock(const GptSizes& sizes) : sizes_(sizes) {}
  std::string type() const override { return "gpt_block"; }
  std::string options() const override { return concat("heads ", sizes_.heads, ", dropout ", sizes_.dropout); }

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], sizes_.width);
    const std::int64_t w = sizes_.width;
    // Residual branches start smaller the deeper the model (GPT-2, section 2.3).
    const double residual = kInit / std::sqrt(2.0 * static_cast<double>(sizes_.layers));
    LayerDescription description;
    description.outputs = {inputs[0]};
    description.parameters = {{"ln_1.weight", {w}, Init::ones(), ""},
                              {"ln_1.bias", {w}, Init::zeros(), ""},
                              {"attn.c_attn.weight", {w, 3 * w}, Init::normal(kInit), ""},
                              {"attn.c_attn.bias", {3 * w}, Init::zeros(), ""},
                              {"attn.c_proj.weight", {w, w}, Init::normal(residual), ""},
                              {"attn.c_proj.bias", {w}, Init::zeros(), ""},
                              {"ln_2.weight", {w}, Init::ones(), ""},
                              {"ln_2.bias", {w}, Init::zeros(), ""},
                              {"mlp.c_fc.weight", {w, 4 * w}, Init::normal(kInit), ""},
                              {"mlp.c_fc.bias", {4 * w}, Init::zeros(), ""},
                              {"mlp.c_proj.weight", {4 * w, w}, Init::normal(residual), ""},
                              {"mlp.c_proj.bias", {w}, Init::zeros(), ""}};
    return description;
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor attended = inputs[0] + attention(normed(inputs[0], "ln_1", context), context);
    return {attended + mlp(normed(attended, "ln_2", context), context)};
  }

 private:
  at::Tensor normed(const at::Tensor& x, const std::string& norm, LayerContext& context) const {
    return at::layer_norm(x, {sizes_.width}, context.leaf(norm + ".weight"), context.leaf(norm + ".bias"), kEpsilon);
  }

  at::Tensor attention(const at::Tensor& x, LayerContext& context) const {
    const std::int64_t rows = x.size(0), length = x.size(1), head_width = sizes_.width / sizes_.heads;
    const at::Tensor qkv = linear(context, x, "attn.c_attn.weight", "attn.c_attn.bias", WeightLayout::in_out);
    std::vector<at::Tensor> parts = qkv.split(sizes_.width, 2);
    for (at::Tensor& part : parts) part = part.view({rows, length, sizes_.heads, head_width}).transpose(1, 2);
    const at::Tensor mixed = at::scaled_dot_product_attention(
        parts[0], parts[1], parts[2], /*attn_mask=*/{}, context.training() ? sizes_.dropout : 0.0, /*is_causal=*/true);
    const at::Tensor joined = mixed.transpose(1, 2).reshape({rows, length, sizes_.width});
    const at::Tensor projected =
        linear(context, joined, "attn.c_proj.weight", "attn.c_proj.bias", WeightLayout::in_out);
    return at::dropout(projected, sizes_.dropout, context.training());
  }

  at::Tensor mlp(const at::Tensor& x, LayerContext& context) const {
    const at::Tensor hidden =
        at::gelu(linear(context, x, "mlp.c_fc.weight", "mlp.c_fc.bias", WeightLayout::in_out), "tanh");
    const at::Tensor projected = linear(context, hidden, "mlp.c_proj.weight", "mlp.c_proj.bias", WeightLayout::in_out);
    return at::dropout(projected, sizes_.dropout, context.training());
  }

  GptSizes sizes_;
};

class GptHead : public Layer {
 public:
  explicit GptHead(const GptSizes& sizes) : sizes_(sizes) {}
  std::string type() const override { return "gpt_head"; }

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], sizes_.width);
    LayerDescription description;
    description.outputs = {inputs[0]};
    description.outputs[0].sizes.back() = sizes_.vocab;
    description.parameters = {
        {"weight", {sizes_.vocab, sizes_.width}, Init::normal(kInit), sizes_.tied ? "transformer.wte.weight" : ""}};
    return description;
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    return {linear(context, inputs[0], "weight", "")};
  }

 private:
  GptSizes sizes_;
};

/// What GPT2Config of Hugging Face's transformers needs to build this model. Its default token ids are those of a
/// vocabulary of 50257.
std::string hub_config(const GptSizes& sizes) {
  const std::string end_token = sizes.vocab > 50256 ? "50256" : "null";
  return concat("{\n  \"architectures\": [\"GPT2LMHeadModel\"],\n  \"model_type\": \"gpt2\",\n  \"n_layer\": ",
                sizes.layers, ",\n  \"n_head\": ", sizes.heads, ",\n  \"n_embd\": ", sizes.width,
                ",\n  \"n_positions\": ", sizes.context, ",\n  \"vocab_size\": ", sizes.vocab,
                ",\n  \"activation_function\": \"gelu_new\",\n", "  \"layer_norm_epsilon\": ", kEpsilon,
                ",\n  \"initializer_range\": ", kInit, ",\n  \"embd_pdrop\": ", sizes.dropout,
                ",\n  \"attn_pdrop\": ", sizes.dropout, ",\n  \"resid_pdrop\": ", sizes.dropout,
                ",\n  \"tie_word_embeddings\": ", sizes.tied ? "true" : "false", ",\n  \"bos_token_id\": ", end_token,
                ",\n  \"eos_token_id\": ", end_token, ",\n  \"torch_dtype\": \"float32\"\n}\n");
}

}  // namespace

Model make_gpt(const Section& section) {
  const auto positive = between<std::int64_t>(1, kMostSize);
  GptSizes sizes{};
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
