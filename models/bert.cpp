// SPDX-License-Identifier: Apache-2.0
//
// BERT (Devlin, Chang, Lee, Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers for Language
// Understanding", 2019) with the parameter names and layouts of Hugging Face's BertForMaskedLM, or, with `classes`, of
// BertForSequenceClassification. One layer per block, as the unit of partition: embed, h.0 ... h.(n-1), and transform,
// head, or pooler, head. Which positions may be looked at travels with the activations, from block to block.
#include <ATen/ATen.h>

#include <map>
#include <nlohmann/json.hpp>

#include "models/hub.hpp"
#include "models/language.hpp"
#include "runtime/config/field.hpp"
#include "runtime/layer/onnx_graph.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

struct BertSizes {
  std::int64_t layers = 0, heads = 0, width = 0, hidden = 0, context = 0, vocab = 0, types = 2;
  std::int64_t pad = 0;      ///< the token that fills a row and is not looked at; -1: none is
  std::int64_t classes = 0;  ///< 0: masked language model
  double dropout = 0, epsilon = 1e-12;
  bool reads_types = false, reads_mask = false;

  bool masks() const { return reads_mask || pad >= 0; }
};

constexpr double kInit = 0.02;  // standard deviation: initializer_range

/// What the parameters do not show; blocks of models of unlike depth cost the same.
void fields(FieldVisitor& visit, BertSizes& sizes) {
  visit("heads", value(sizes.heads, at_least<std::int64_t>(1)));
  visit("dropout", value(sizes.dropout, fraction_below_one()));
}

void keys_of_model(FieldVisitor& visit, BertSizes& sizes) {
  const auto positive = between<std::int64_t>(1, kMostSize);
  visit("layers", value(sizes.layers, between<std::int64_t>(1, kMostLayers)).required());
  visit("heads", value(sizes.heads, positive).required());
  visit("width", value(sizes.width, positive).required());
  visit("hidden", value(sizes.hidden, positive).or_else([&sizes] { sizes.hidden = 4 * sizes.width; }));
  visit("context", value(sizes.context, positive).required());
  visit("vocab", value(sizes.vocab, positive).required());
  visit("types", value(sizes.types, positive));
  visit("classes", value(sizes.classes, between<std::int64_t>(0, kMostSize)));
  visit("pad", value(sizes.pad, between<std::int64_t>(-1, kMostSize)));
  visit("token_types", value(sizes.reads_types));
  visit("attention_mask", value(sizes.reads_mask));
  visit("epsilon", epsilon_field(sizes.epsilon));
  visit("dropout", value(sizes.dropout, fraction_below_one()));
}

LinearPart dense(const char* name, std::int64_t in, std::int64_t out) {
  return {name, in, out, {.weight_init = Init::normal(kInit), .bias_init = Init::zeros()}};
}

constexpr const char* kMask = "mask";

/// x tokens [rows, length] -> x [rows, length, width] and, where there is one, mask bool [rows, length].
class BertEmbedding : public LayerOf<BertSizes> {
 public:
  explicit BertEmbedding(const BertSizes& sizes)
      : LayerOf("bert_embedding", sizes),
        words_{"word_embeddings", sizes.vocab, sizes.width, Init::normal(kInit), sizes.pad},
        positions_{"position_embeddings", sizes.context, sizes.width, Init::normal(kInit)},
        types_{"token_type_embeddings", sizes.types, sizes.width, Init::normal(kInit)},
        norm_{"LayerNorm", sizes.width, sizes.epsilon} {}

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    const std::size_t wanted =
        1 + static_cast<std::size_t>(config().reads_types) + static_cast<std::size_t>(config().reads_mask);
    expect_inputs(*this, inputs, wanted);
    const EntrySpec& tokens = inputs[0];
    expect_tokens(*this, tokens, "BERT", config().context, config().vocab);
    for (std::size_t i = 1; i < inputs.size(); ++i)
      if (inputs[i].dtype != at::kLong || inputs[i].sizes != tokens.sizes)
        throw ModelError(concat("a BERT got ", to_string(inputs[i]), " beside ", to_string(tokens),
                                "; it expects int64 of the same sizes"));
    if (config().reads_types) expect_below(*this, inputs[1], config().types, "number of types");
    std::vector<EntrySpec> outputs = {{"", at::kFloat, {tokens.sizes[0], tokens.sizes[1], config().width}}};
    if (config().masks()) outputs.push_back({"", at::kBool, tokens.sizes, /*differentiable=*/false});
    return described(outputs, words_, positions_, types_, norm_);
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor& tokens = inputs[0];
    const at::Tensor positions = at::arange(tokens.size(1), tokens.options());
    const at::Tensor types = config().reads_types ? inputs[1] : at::zeros_like(tokens);
    const at::Tensor sum = words_(context, tokens) + types_(context, types) + positions_(context, positions);
    Tensors outputs = {dropout(context, norm_(context, sum), config().dropout)};
    if (config().masks()) outputs.push_back(config().reads_mask ? inputs.back() != 0 : tokens != config().pad);
    return outputs;
  }

  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    const std::string& tokens = inputs[0];
    const std::string nothing = graph.integer(0);  // laid over all tokens
    const std::string types = types_.onnx(graph, config().reads_types ? inputs[1] : nothing);
    const std::string positions = positions_.onnx(graph, graph.range(graph.size_of(tokens, 1)));
    const std::string sum = graph.add("Add", {graph.add("Add", {words_.onnx(graph, tokens), types}), positions});
    std::vector<std::string> outputs = {norm_.onnx(graph, sum)};
    if (config().masks()) {
      const std::string hidden = config().reads_mask ? graph.add("Equal", {inputs.back(), nothing})
                                                     : graph.add("Equal", {tokens, graph.integer(config().pad)});
      outputs.push_back(graph.add("Not", {hidden}));
    }
    return outputs;
  }

 private:
  EmbeddingPart words_, positions_, types_;
  LayerNormPart norm_;
};

/// x [rows, length, width] and the mask, which is handed on.
class BertBlock : public LayerOf<BertSizes> {
 public:
  explicit BertBlock(const BertSizes& sizes)
      : LayerOf("bert_block", sizes),
        q_(dense("attention.self.query", sizes.width, sizes.width)),
        k_(dense("attention.self.key", sizes.width, sizes.width)),
        v_(dense("attention.self.value", sizes.width, sizes.width)),
        attention_{.heads = sizes.heads, .dropout = sizes.dropout},
        attended_(dense("attention.output.dense", sizes.width, sizes.width)),
        after_attention_{"attention.output.LayerNorm", sizes.width, sizes.epsilon},
        up_(dense("intermediate.dense", sizes.width, sizes.hidden)),
        down_(dense("output.dense", sizes.hidden, sizes.width)),
        after_mlp_{"output.LayerNorm", sizes.width, sizes.epsilon} {}

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, config().masks() ? 2 : 1);
    expect_width(*this, inputs[0], config().width);
    return described(inputs, q_, k_, v_, attended_, after_attention_, up_, down_, after_mlp_);
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor& x = inputs[0];
    const AttentionMask mask{.keys = config().masks() ? inputs[1] : at::Tensor()};
    const at::Tensor mixed = attention_(context, q_(context, x), k_(context, x), v_(context, x), mask);
    const at::Tensor attended =
        after_attention_(context, dropout(context, attended_(context, mixed), config().dropout) + x);
    const at::Tensor hidden = down_(context, at::gelu(up_(context, attended)));
    Tensors outputs = inputs;
    outputs[0] = after_mlp_(context, dropout(context, hidden, config().dropout) + attended);
    return outputs;
  }

  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    const std::string& x = inputs[0];
    const OnnxAttentionMask mask{.keys = config().masks() ? inputs[1] : ""};
    const std::string mixed =
        attention_.onnx(graph, config().width, q_.onnx(graph, x), k_.onnx(graph, x), v_.onnx(graph, x), mask);
    const std::string attended = after_attention_.onnx(graph, graph.add("Add", {attended_.onnx(graph, mixed), x}));
    const std::string hidden = down_.onnx(graph, onnx_gelu(graph, up_.onnx(graph, attended)));
    std::vector<std::string> outputs = inputs;
    outputs[0] = after_mlp_.onnx(graph, graph.add("Add", {hidden, attended}));
    return outputs;
  }

 private:
  LinearPart q_, k_, v_;
  AttentionPart attention_;
  LinearPart attended_;
  LayerNormPart after_attention_;
  LinearPart up_, down_;
  LayerNormPart after_mlp_;
};

/// What BERT does before it guesses tokens.
class BertTransform : public LayerOf<BertSizes> {
 public:
  explicit BertTransform(const BertSizes& sizes)
      : LayerOf("bert_transform", sizes),
        dense_(dense("dense", sizes.width, sizes.width)),
        norm_{"LayerNorm", sizes.width, sizes.epsilon} {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], config().width);
    return described({inputs[0]}, dense_, norm_);
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    return {norm_(context, at::gelu(dense_(context, inputs[0])))};
  }
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    return {norm_.onnx(graph, onnx_gelu(graph, dense_.onnx(graph, inputs[0])))};
  }

 private:
  LinearPart dense_;
  LayerNormPart norm_;
};

/// [rows, length, width] -> logits [rows, length, vocab]; the weight is the table of words, the bias its own.
class BertWordHead : public LayerOf<BertSizes> {
 public:
  explicit BertWordHead(const BertSizes& sizes)
      : LayerOf("bert_word_head", sizes),
        decoder_{
            "decoder", sizes.width, sizes.vocab, {.bias = false, .tied_to = "bert.embeddings.word_embeddings.weight"}} {
  }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], config().width);
    EntrySpec logits = inputs[0];
    logits.sizes.back() = config().vocab;
    LayerDescription description = described({logits}, decoder_);
    description.parameters.push_back({"bias", {config().vocab}, Init::zeros(), ""});
    return description;
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    return {linear(context, inputs[0], "decoder.weight", "bias")};
  }
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    return {onnx_linear(graph, inputs[0], "decoder.weight", "bias")};
  }

 private:
  LinearPart decoder_;
};

/// The first position of each row: [rows, length, width] -> [rows, width].
class BertPooler : public LayerOf<BertSizes> {
 public:
  explicit BertPooler(const BertSizes& sizes)
      : LayerOf("bert_pooler", sizes), dense_(dense("dense", sizes.width, sizes.width)) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], config().width);
    EntrySpec pooled = inputs[0];
    pooled.sizes = {inputs[0].sizes[0], config().width};
    return described({pooled}, dense_);
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    return {at::tanh(dense_(context, inputs[0].select(1, 0).contiguous()))};
  }
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    const std::string first = graph.add("Gather", {inputs[0], graph.integer(0)}, {{"axis", std::int64_t{1}}});
    return {graph.add("Tanh", {dense_.onnx(graph, first)})};
  }

 private:
  LinearPart dense_;
};

class BertClassHead : public LayerOf<BertSizes> {
 public:
  explicit BertClassHead(const BertSizes& sizes)
      : LayerOf("bert_class_head", sizes), classes_(dense("", sizes.width, sizes.classes)) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], config().width);
    EntrySpec logits = inputs[0];
    logits.sizes.back() = config().classes;
    return described({logits}, classes_);
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    return {classes_(context, dropout(context, inputs[0], config().dropout))};
  }
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    return {classes_.onnx(graph, inputs[0])};
  }

 private:
  LinearPart classes_;
};

std::string hub_config(const BertSizes& sizes) {
  nlohmann::ordered_json json = {
      {"architectures", {sizes.classes > 0 ? "BertForSequenceClassification" : "BertForMaskedLM"}},
      {"model_type", "bert"},
      {"hidden_size", sizes.width},
      {"num_hidden_layers", sizes.layers},
      {"num_attention_heads", sizes.heads},
      {"intermediate_size", sizes.hidden},
      {"hidden_act", "gelu"},
      {"max_position_embeddings", sizes.context},
      {"vocab_size", sizes.vocab},
      {"type_vocab_size", sizes.types},
      {"layer_norm_eps", sizes.epsilon},
      {"initializer_range", kInit},
      {"hidden_dropout_prob", sizes.dropout},
      {"attention_probs_dropout_prob", sizes.dropout},
      {"pad_token_id", nullptr}};
  if (sizes.pad >= 0) json["pad_token_id"] = sizes.pad;
  for (std::int64_t label = 0; label < sizes.classes; ++label) {
    json["id2label"][std::to_string(label)] = concat("LABEL_", label);
    json["label2id"][concat("LABEL_", label)] = label;
  }
  return json.dump();
}

}  // namespace

std::string bert_from_hub(const HubConfig& config) {
  config.expect("hidden_act", std::string("gelu"));
  config.expect("position_embedding_type", std::string("absolute"));
  for (const char* key : {"is_decoder", "add_cross_attention"}) config.expect(key, false);
  config.expect("tie_word_embeddings", true);
  const double dropout = config.one_rate("hidden_dropout_prob", {"attention_probs_dropout_prob"});
  config.expect("classifier_dropout", dropout);
  nlohmann::ordered_json keys = {{"layers", config.get<std::int64_t>("num_hidden_layers")},
                                 {"heads", config.get<std::int64_t>("num_attention_heads")},
                                 {"width", config.get<std::int64_t>("hidden_size")},
                                 {"hidden", config.get<std::int64_t>("intermediate_size")},
                                 {"context", config.get<std::int64_t>("max_position_embeddings")},
                                 {"vocab", config.get<std::int64_t>("vocab_size")},
                                 {"types", config.get<std::int64_t>("type_vocab_size", 2)},
                                 {"pad", config.get<std::int64_t>("pad_token_id", 0)},
                                 {"epsilon", config.get("layer_norm_eps", 1e-12)},
                                 {"dropout", dropout}};
  const auto architectures = config.get("architectures", std::vector<std::string>());
  if (architectures == std::vector<std::string>{"BertForSequenceClassification"})
    keys["classes"] = config.get("id2label", std::map<std::string, std::string>{{"0", ""}, {"1", ""}}).size();
  return keys.dump();
}

Model make_bert(const Section& section) {
  BertSizes sizes;
  read_fields(section, [&sizes](FieldVisitor& visit) { keys_of_model(visit, sizes); });
  check_heads(section, sizes.width, sizes.heads);
  if (sizes.pad >= sizes.vocab)
    throw section.error("pad", concat("got ", sizes.pad, ", expected a token below the vocab of ", sizes.vocab,
                                      ", or -1: every token may be looked at"));
  Model model{"bert", {}};
  model.hub_config = hub_config(sizes);
  model.hub_prefix = "bert.";
  model.hub_unused = {"*.position_ids", "cls.seq_relationship.*", "cls.predictions.decoder.bias"};
  model.hub_unused.push_back(sizes.classes > 0 ? "cls.*" : "bert.pooler.*");
  model.hub_spellings = {{".LayerNorm.weight", ".LayerNorm.gamma"}, {".LayerNorm.bias", ".LayerNorm.beta"}};

  std::vector<std::string> read = {"x"}, handed_on = {"x"};
  if (sizes.reads_types) read.emplace_back("token_type_ids");
  if (sizes.reads_mask) read.emplace_back("attention_mask");
  if (sizes.masks()) handed_on.emplace_back(kMask);
  const std::vector<std::string> x = {"x"};
  model.layers.push_back({"embed", std::make_shared<BertEmbedding>(sizes), read, handed_on, "bert.embeddings."});
  for (std::int64_t i = 0; i < sizes.layers; ++i)
    model.layers.push_back({concat("h.", i), std::make_shared<BertBlock>(sizes), handed_on, handed_on,
                            concat("bert.encoder.layer.", i, ".")});
  if (sizes.classes > 0) {
    model.layers.push_back({"pooler", std::make_shared<BertPooler>(sizes), x, x, "bert.pooler."});
    model.layers.push_back({"head", std::make_shared<BertClassHead>(sizes), x, x, "classifier."});
  } else {
    model.layers.push_back({"transform", std::make_shared<BertTransform>(sizes), x, x, "cls.predictions.transform."});
    model.layers.push_back({"head", std::make_shared<BertWordHead>(sizes), x, x, "cls.predictions."});
  }
  return model;
}

}  // namespace lockstep
