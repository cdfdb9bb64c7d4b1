// SPDX-License-Identifier: Apache-2.0
//
// Llama (Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023) with the parameter names and
// layouts of Hugging Face's LlamaForCausalLM, and with it what is made of the same blocks: Llama 2 and 3, Mistral and,
// with biases in q, k and v, Qwen 2. RMSNorm before each half of a block, rotary positions, grouped queries, SwiGLU.
// One layer per block, as the unit of partition: embed, h.0 ... h.(n-1), norm, head.
#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "models/hub.hpp"
#include "models/language.hpp"
#include "models/registry.hpp"
#include "runtime/config/field.hpp"
#include "runtime/layer/onnx_graph.hpp"

namespace lockstep {
namespace {

enum class Biases : std::uint8_t { none, qkv, all };
constexpr const char* to_string(Biases biases) {
  switch (biases) {
    case Biases::none: return "none";
    case Biases::qkv: return "qkv";
    case Biases::all: return "all";
  }
  return nullptr;
}

struct LlamaSizes {
  std::int64_t layers = 0, heads = 0, kv_heads = 0, width = 0, head_width = 0, hidden = 0, context = 0, vocab = 256;
  std::int64_t window = 0, document_end = -1;
  double epsilon = 1e-5, dropout = 0;
  Biases attention_bias = Biases::none;
  bool mlp_bias = false, tied = false;
  RotaryConfig rotary = {};
};

constexpr double kInit = 0.02;  // standard deviation of the initial weights: initializer_range

/// 8/3 of the width, which costs what 4 times the width costs without the gate, rounded up (Llama's reference code).
std::int64_t usual_hidden(std::int64_t width) {
  constexpr std::int64_t multiple = 256;
  return (8 * width / 3 + multiple - 1) / multiple * multiple;
}

/// What the parameters do not show; blocks of models of unlike depth cost the same.
void fields(FieldVisitor& visit, LlamaSizes& sizes) {
  visit("heads", value(sizes.heads, at_least<std::int64_t>(1)));
  visit("kv_heads", value(sizes.kv_heads, at_least<std::int64_t>(1)));
  visit("dropout", value(sizes.dropout, fraction_below_one()));
  visit("window", value(sizes.window, at_least<std::int64_t>(0)));
  visit("document_end", value(sizes.document_end, at_least<std::int64_t>(-1)));
}

void keys_of_model(FieldVisitor& visit, LlamaSizes& sizes) {
  const auto positive = between<std::int64_t>(1, kMostSize);
  visit("layers", value(sizes.layers, between<std::int64_t>(1, kMostLayers)).required());
  visit("heads", value(sizes.heads, positive).required());
  visit("kv_heads", value(sizes.kv_heads, positive).or_else([&sizes] { sizes.kv_heads = sizes.heads; }));
  visit("width", value(sizes.width, positive).required());
  visit("head_width",
        value(sizes.head_width, positive).or_else([&sizes] { sizes.head_width = sizes.width / sizes.heads; }));
  visit("hidden", value(sizes.hidden, positive).or_else([&sizes] { sizes.hidden = usual_hidden(sizes.width); }));
  visit("context", value(sizes.context, positive).required());
  visit("vocab", value(sizes.vocab, positive));
  visit("window", value(sizes.window, between<std::int64_t>(0, kMostSize)));
  visit("document_end", value(sizes.document_end, between<std::int64_t>(-1, kMostSize)));
  visit("epsilon", epsilon_field(sizes.epsilon));
  visit("dropout", value(sizes.dropout, fraction_below_one()));
  visit("attention_bias", value(sizes.attention_bias));
  visit("mlp_bias", value(sizes.mlp_bias));
  visit("tie_embeddings", value(sizes.tied));
  fields(visit, sizes.rotary);
}

class LlamaEmbedding : public LayerOf<LlamaSizes> {
 public:
  explicit LlamaEmbedding(const LlamaSizes& sizes)
      : LayerOf("llama_embedding", sizes), tokens_{"embed_tokens", sizes.vocab, sizes.width, Init::normal(kInit)} {}

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    const EntrySpec& tokens = inputs[0];
    expect_tokens(*this, tokens, "Llama", config().context, config().vocab);
    std::vector<EntrySpec> outputs = {{"", at::kFloat, {tokens.sizes[0], tokens.sizes[1], config().width}}};
    if (config().document_end >= 0) outputs.push_back({"", at::kLong, tokens.sizes, /*differentiable=*/false});
    return described(outputs, tokens_);
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    Tensors outputs = {tokens_(context, inputs[0])};
    if (config().document_end >= 0) outputs.push_back(documents_of(inputs[0], config().document_end));
    return outputs;
  }

  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    std::vector<std::string> outputs = {tokens_.onnx(graph, inputs[0])};
    if (config().document_end >= 0) outputs.push_back(onnx_documents_of(graph, inputs[0], config().document_end));
    return outputs;
  }

 private:
  EmbeddingPart tokens_;
};

LinearPart projection(const char* name, std::int64_t in, std::int64_t out, bool bias) {
  return {name, in, out, {.bias = bias, .weight_init = Init::normal(kInit), .bias_init = Init::zeros()}};
}

class LlamaBlock : public LayerOf<LlamaSizes> {
 public:
  explicit LlamaBlock(const LlamaSizes& sizes)
      : LayerOf("llama_block", sizes),
        before_attention_{"input_layernorm", sizes.width, sizes.epsilon},
        q_(projection("self_attn.q_proj", sizes.width, sizes.heads * sizes.head_width, has_bias(sizes))),
        k_(projection("self_attn.k_proj", sizes.width, sizes.kv_heads * sizes.head_width, has_bias(sizes))),
        v_(projection("self_attn.v_proj", sizes.width, sizes.kv_heads * sizes.head_width, has_bias(sizes))),
        attention_{.heads = sizes.heads,
                   .dropout = sizes.dropout,
                   .causal = true,
                   .kv_heads = sizes.kv_heads,
                   .window = sizes.window,
                   .rotary = sizes.rotary},
        attended_(projection("self_attn.o_proj", sizes.heads * sizes.head_width, sizes.width,
                             sizes.attention_bias == Biases::all)),
        before_mlp_{"post_attention_layernorm", sizes.width, sizes.epsilon},
        gate_(projection("mlp.gate_proj", sizes.width, sizes.hidden, sizes.mlp_bias)),
        up_(projection("mlp.up_proj", sizes.width, sizes.hidden, sizes.mlp_bias)),
        down_(projection("mlp.down_proj", sizes.hidden, sizes.width, sizes.mlp_bias)) {}

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, config().document_end >= 0 ? 2 : 1);
    expect_width(*this, inputs[0], config().width);
    return described(inputs, before_attention_, q_, k_, v_, attended_, before_mlp_, gate_, up_, down_);
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor x = before_attention_(context, inputs[0]);
    const AttentionMask mask{.documents = inputs.size() > 1 ? inputs[1] : at::Tensor()};
    const at::Tensor mixed = attention_(context, q_(context, x), k_(context, x), v_(context, x), mask);
    const at::Tensor attended = inputs[0] + attended_(context, mixed);
    const at::Tensor y = before_mlp_(context, attended);
    Tensors outputs = inputs;
    outputs[0] = attended + down_(context, at::silu(gate_(context, y)) * up_(context, y));
    return outputs;
  }

  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    const std::string x = before_attention_.onnx(graph, inputs[0]);
    const OnnxAttentionMask mask{.documents = inputs.size() > 1 ? inputs[1] : ""};
    const std::string mixed = attention_.onnx(graph, config().heads * config().head_width, q_.onnx(graph, x),
                                              k_.onnx(graph, x), v_.onnx(graph, x), mask);
    const std::string attended = graph.add("Add", {inputs[0], attended_.onnx(graph, mixed)});
    const std::string y = before_mlp_.onnx(graph, attended);
    const std::string hidden = graph.add("Mul", {onnx_silu(graph, gate_.onnx(graph, y)), up_.onnx(graph, y)});
    std::vector<std::string> outputs = inputs;
    outputs[0] = graph.add("Add", {attended, down_.onnx(graph, hidden)});
    return outputs;
  }

 private:
  static bool has_bias(const LlamaSizes& sizes) { return sizes.attention_bias != Biases::none; }

  RmsNormPart before_attention_;
  LinearPart q_, k_, v_;
  AttentionPart attention_;
  LinearPart attended_;
  RmsNormPart before_mlp_;
  LinearPart gate_, up_, down_;
};

/// As `rope_scaling` of config.json has it.
nlohmann::ordered_json scaling_json(const RotaryConfig& rotary) {
  nlohmann::ordered_json json = {{"rope_type", to_string(rotary.scaling)}, {"factor", rotary.factor}};
  if (rotary.scaling == RotaryScaling::linear) return json;
  json["original_max_position_embeddings"] = rotary.original_context;
  if (rotary.attention_factor > 0) json["attention_factor"] = rotary.attention_factor;
  if (rotary.scaling == RotaryScaling::llama3) {
    json["low_freq_factor"] = rotary.low_freq_factor;
    json["high_freq_factor"] = rotary.high_freq_factor;
  }
  if (rotary.scaling == RotaryScaling::yarn) {
    json["beta_fast"] = rotary.beta_fast;
    json["beta_slow"] = rotary.beta_slow;
  }
  if (rotary.scaling == RotaryScaling::longrope) {
    json["short_factor"] = rotary.short_factor;
    json["long_factor"] = rotary.long_factor;
  }
  return json;
}

/// config.json as transformers 4 and 5 read it.
std::string hub_config(const LlamaSizes& sizes) {
  const bool qwen = sizes.attention_bias == Biases::qkv;
  nlohmann::ordered_json json = {{"architectures",
                                  {qwen               ? "Qwen2ForCausalLM"
                                   : sizes.window > 0 ? "MistralForCausalLM"
                                                      : "LlamaForCausalLM"}},
                                 {"model_type", qwen               ? "qwen2"
                                                : sizes.window > 0 ? "mistral"
                                                                   : "llama"},
                                 {"hidden_size", sizes.width},
                                 {"intermediate_size", sizes.hidden},
                                 {"num_hidden_layers", sizes.layers},
                                 {"num_attention_heads", sizes.heads},
                                 {"num_key_value_heads", sizes.kv_heads},
                                 {"head_dim", sizes.head_width},
                                 {"max_position_embeddings", sizes.context},
                                 {"vocab_size", sizes.vocab},
                                 {"hidden_act", "silu"},
                                 {"rms_norm_eps", sizes.epsilon},
                                 {"initializer_range", kInit},
                                 {"attention_dropout", sizes.dropout},
                                 {"attention_bias", sizes.attention_bias == Biases::all},
                                 {"mlp_bias", sizes.mlp_bias},
                                 {"tie_word_embeddings", sizes.tied},
                                 {"rope_theta", sizes.rotary.theta},
                                 {"rope_scaling", nullptr},
                                 {"bos_token_id", nullptr},
                                 {"eos_token_id", nullptr}};
  if (qwen) json["use_sliding_window"] = false;
  if (!qwen && sizes.window > 0) json["sliding_window"] = sizes.window;
  if (sizes.rotary.scaling != RotaryScaling::none) json["rope_scaling"] = scaling_json(sizes.rotary);
  return json.dump();
}

/// What `rope_scaling` of transformers 4, or `rope_parameters` of 5, is for the keys of ours.
nlohmann::ordered_json scaling_keys(const HubConfig& scaling, std::int64_t context) {
  const auto type = scaling.get("rope_type", scaling.get("type", std::string("default")));
  // "dynamic" stretches beyond the context alone, and no sample is longer.
  if (type == "default" || type == "dynamic") return {{"rope_type", "none"}};
  if (!find_enum<RotaryScaling>(type))
    throw scaling.error("rope_type",
                        concat("got ", type, ", expected one of default, dynamic, ", join(names<RotaryScaling>())));
  scaling.expect("partial_rotary_factor", 1.0);
  nlohmann::ordered_json keys = {{"rope_type", type}};
  const auto original = scaling.get("original_max_position_embeddings", context);
  keys["factor"] = scaling.get("factor", static_cast<double>(context) / static_cast<double>(original));
  if (type == "linear") return keys;
  keys["original_max_position_embeddings"] = original;
  for (const char* key : {"attention_factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"})
    if (scaling.has(key)) keys[key] = scaling.get<double>(key);
  for (const char* key : {"short_factor", "long_factor"})
    if (scaling.has(key)) keys[key] = scaling.get<std::vector<double>>(key);
  for (const char* key : {"mscale", "mscale_all_dim"})
    if (scaling.has(key)) throw scaling.error(key, "is not available");
  return keys;
}

/// Of `rope_scaling`, what depends on the rest of the model; its original context is the model's unless it says
/// another.
void check_scaling(const Section& section, LlamaSizes& sizes) {
  RotaryConfig& rotary = sizes.rotary;
  if (rotary.original_context == 0) rotary.original_context = sizes.context;
  const Section scaling = section.section("rope_scaling");
  if (rotary.scaling == RotaryScaling::llama3 && rotary.high_freq_factor <= rotary.low_freq_factor)
    throw scaling.error("high_freq_factor", concat("got ", rotary.high_freq_factor,
                                                   ", expected more than low_freq_factor, ", rotary.low_freq_factor));
  if (rotary.scaling != RotaryScaling::longrope) return;
  const auto pairs = static_cast<std::size_t>(sizes.head_width / 2);
  for (const auto& [key, factors] :
       {std::pair{"short_factor", &rotary.short_factor}, {"long_factor", &rotary.long_factor}})
    if (factors->size() != pairs)
      throw scaling.error(key, concat("got ", factors->size(), " numbers, expected ", pairs,
                                      ": one for each two of a head's ", sizes.head_width));
}

}  // namespace

std::string llama_from_hub(const HubConfig& config) {
  const auto type = config.get<std::string>("model_type");
  const bool qwen = type == "qwen2", mistral = type == "mistral";
  config.expect("hidden_act", std::string("silu"));
  if (qwen) config.expect("use_sliding_window", false);
  const auto context = config.get<std::int64_t>("max_position_embeddings");
  const auto heads = config.get<std::int64_t>("num_attention_heads"), width = config.get<std::int64_t>("hidden_size");
  nlohmann::ordered_json keys = {{"layers", config.get<std::int64_t>("num_hidden_layers")},
                                 {"heads", heads},
                                 {"kv_heads", config.get("num_key_value_heads", heads)},
                                 {"width", width},
                                 {"head_width", config.get("head_dim", width / heads)},
                                 {"hidden", config.get<std::int64_t>("intermediate_size")},
                                 {"context", context},
                                 {"vocab", config.get<std::int64_t>("vocab_size")},
                                 {"window", mistral ? config.get<std::int64_t>("sliding_window", 0) : 0},
                                 {"epsilon", config.get("rms_norm_eps", 1e-6)},
                                 {"dropout", config.get("attention_dropout", 0.0)},
                                 {"attention_bias", qwen                                  ? "qkv"
                                                    : config.get("attention_bias", false) ? "all"
                                                                                          : "none"},
                                 {"mlp_bias", config.get("mlp_bias", false)},
                                 {"tie_embeddings", config.get("tie_word_embeddings", false)}};
  const HubConfig scaling = config.below(config.has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  keys["rope_theta"] = scaling.get("rope_theta", config.get("rope_theta", 10000.0));
  keys["rope_scaling"] = scaling_keys(scaling, context);
  return keys.dump();
}

Model make_llama(const Section& section) {
  LlamaSizes sizes;
  read_fields(section, [&sizes](FieldVisitor& visit) { keys_of_model(visit, sizes); });
  if (sizes.heads % sizes.kv_heads != 0)
    throw section.error("kv_heads", concat("got ", sizes.kv_heads, ", which does not divide the ", sizes.heads,
                                           " heads; as many heads share each key and value"));
  if (!section.has("head_width")) check_heads(section, sizes.width, sizes.heads, ", or give head_width");
  check_scaling(section, sizes);
  if (sizes.head_width % 2 != 0)
    throw section.error(
        "head_width", concat("got ", sizes.head_width, "; rotary positions turn pairs of numbers: it has to be even"));

  Model model{"llama", {}};
  model.hub_config = hub_config(sizes);
  model.hub_prefix = "model.";
  model.hub_unused = {"*.rotary_emb.inv_freq"};  // which older versions saved
  std::vector<std::string> handed_on = {"x"};
  if (sizes.document_end >= 0) handed_on.emplace_back("documents");
  model.layers.push_back({"embed", std::make_shared<LlamaEmbedding>(sizes), {"x"}, handed_on, "model."});
  for (std::int64_t i = 0; i < sizes.layers; ++i)
    model.layers.push_back(
        {concat("h.", i), std::make_shared<LlamaBlock>(sizes), handed_on, handed_on, concat("model.layers.", i, ".")});
  model.layers.push_back({"norm", std::make_shared<RmsNorm>(sizes.width, sizes.epsilon), {"x"}, {"x"}, "model.norm."});
  const auto head = std::make_shared<LanguageHead>("llama_head", sizes.width, sizes.vocab, Init::normal(kInit),
                                                   sizes.tied ? "model.embed_tokens.weight" : "");
  model.layers.push_back({"head", head, {"x"}, {"x"}, "lm_head."});
  return model;
}

}  // namespace lockstep
