// SPDX-License-Identifier: Apache-2.0
//
// Models that a config lists layer by layer, and what layers say of themselves: their keys, their options, their place.
#include "models/registry.hpp"
#include "runtime/layer/norms.hpp"
#include "runtime/layer/recurrent_layers.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/training/losses.hpp"
#include "runtime/training/trainer_state.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

constexpr const char* kTwoBranches = R"(
type: sequential
layers:
  - {type: linear, in: 6, out: 8}
  - {type: tanh, outputs: [a]}
  - {type: linear, name: right, in: 8, out: 8, outputs: [b]}
  - {type: layer_norm, width: 8, inputs: [b], outputs: [b]}
  - {type: dropout, p: 0.25, inputs: [b], outputs: [b]}
  - {type: add, name: join, inputs: [a, b, x]}
  - {type: linear, name: out, in: 8, out: 3}
)";

Model model_from(const std::string& text, const ModelTables& tables = {}) {
  return make_model(load_config_text(text, "m.yaml"), model_families(), tables);
}

/// The one layer of `{KEYS}`.
std::shared_ptr<const Layer> layer_from(const std::string& keys) {
  return model_from("{type: sequential, layers: [{" + keys + "}]}").layers.at(0).layer;
}

std::string refused(const std::string& text, const ModelTables& tables = {}) {
  try {
    const Model model = model_from(text, tables);
    Trainer(model, regression_data(16, 6, 3), small_config("mean_squared_error", 8, 2));
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

std::string refused_layer(const std::string& keys) {
  return refused("type: sequential\nlayers:\n  - {" + keys + "}\n");
}

}  // namespace

TEST_CASE("a list of layers with an mlp's names has an mlp's bits", "[parity]") {
  const DataSplits data = regression_data(21, 6, 3);
  const Config config = small_config("mean_squared_error", 8, 5);
  const RunRecord mlp = reference_run(
      model_of("type: mlp, inputs: 6, width: 8, layers: 1, outputs: 3, activation: gelu, dropout: 0.1"), data, config);
  const Model listed = model_from(R"(
type: sequential
layers:
  - {type: linear, name: fc.0, in: 6, out: 8}
  - {type: gelu, name: act.0}
  - {type: dropout, name: drop.0, p: 0.1}
  - {type: linear, name: out, in: 8, out: 3}
)");
  for (const int stages : {1, 3}) CHECK(difference(mlp, listed, data, with_pipeline(config, stages, "1f1b")) == "");
}

TEST_CASE("a list of layers with branches trains to the same bits for every cut and schedule", "[parity]") {
  const Model model = model_from(kTwoBranches);
  const DataSplits data = regression_data(21, 6, 3);
  const Config config = small_config("mean_squared_error", 8, 5);
  const RunRecord reference = reference_run(model, data, config);
  for (const ScheduleGenerator& schedule : schedule_generators()) {
    if (!schedule.virtual_stages.allows(1)) continue;
    for (int stages = 1; stages <= 4; ++stages) {
      CAPTURE(schedule.name, stages);
      CHECK(difference(reference, model, data, with_pipeline(config, stages, schedule.name)) == "");
    }
  }
  CHECK(difference(reference, model, data, with_pipeline(config, 2, "interleaved_1f1b", 2)) == "");
}

TEST_CASE("layers of a list are called by their numbers, as torch.nn.Sequential's", "[parity]") {
  Config config = small_config("mean_squared_error", 8, 2);
  config.train.freeze = {"0.*"};
  const Trainer trainer(model_from(kTwoBranches), regression_data(16, 6, 3), config);
  std::vector<std::string> names;
  for (const ParameterInfo& parameter : trainer.graph().parameters) {
    names.push_back(parameter.name);
    CHECK(parameter.trainable == !parameter.name.starts_with("0."));
  }
  CHECK(names == std::vector<std::string>{"0.weight", "0.bias", "right.weight", "right.bias", "3.weight", "3.bias",
                                          "out.weight", "out.bias"});
}

TEST_CASE("every layer of the table is what its name says, and has the same options from YAML and from C++",
          "[parity]") {
  const std::vector<std::pair<std::string, std::shared_ptr<const Layer>>> cases = {
      {"type: linear, in: 3, out: 4", std::make_shared<Linear>(3, 4)},
      {"type: linear, in: 3, out: 4, bias: false", std::make_shared<Linear>(3, 4, false)},
      {"type: embedding, count: 7, width: 4", std::make_shared<Embedding>(7, 4)},
      {"type: layer_norm, width: 4, epsilon: 1.0e-6", std::make_shared<LayerNorm>(4, 1e-6)},
      {"type: rms_norm, width: 4", std::make_shared<RmsNorm>(4)},
      {"type: positions, context: 5, width: 4", std::make_shared<Positions>(PositionsConfig{5, 4})},
      {"type: self_attention, width: 4, heads: 2, causal: true",
       std::make_shared<SelfAttention>(SelfAttentionConfig{4, 2, true})},
      {"type: lstm, in: 3, width: 4, bidirectional: true",
       std::make_shared<Recurrent>(RecurrentConfig{RecurrentKind::lstm, 3, 4, true})},
      {"type: gru, in: 3, width: 4, carry: true",
       std::make_shared<Recurrent>(RecurrentConfig{RecurrentKind::gru, 3, 4, false, true})},
      {"type: lengths, pad: 3", std::make_shared<Lengths>(LengthsConfig{3})},
      {"type: dropout, p: 0.1", std::make_shared<Dropout>(0.1)},
      {"type: add", std::make_shared<Add>()},
      {"type: concat", std::make_shared<Concat>()},
      {"type: flatten", std::make_shared<Flatten>()},
      {"type: conv1d, in: 2, out: 4, kernel: 3, groups: 2",
       std::make_shared<Conv1d>(2, 4, Extent{3}, ConvolutionOptions{.groups = 2})},
      {"type: conv2d, in: 2, out: 4, kernel: [3, 5], stride: 2, padding: [1, 2], dilation: 2, bias: false",
       std::make_shared<Conv2d>(
           2, 4, Extent{3, 5},
           ConvolutionOptions{.stride = {2}, .padding = {1, 2}, .dilation = {2}, .groups = 1, .bias = false})},
      {"type: conv_transpose1d, in: 2, out: 4, kernel: 3", std::make_shared<ConvTranspose1d>(2, 4, Extent{3})},
      {"type: conv_transpose2d, in: 2, out: 4, kernel: 3, stride: 2, output_padding: 1",
       std::make_shared<ConvTranspose2d>(2, 4, Extent{3}, ConvolutionOptions{.stride = {2}, .output_padding = {1}})},
      {"type: max_pool2d, kernel: 2", std::make_shared<MaxPool2d>(2)},
      {"type: avg_pool2d, kernel: 3, stride: 1, padding: 1", std::make_shared<AvgPool2d>(3, 1, 1)},
      {"type: global_avg_pool", std::make_shared<GlobalAvgPool>()},
      {"type: upsample, factor: 2", std::make_shared<Upsample>(2)},
      {"type: batch_norm, channels: 4, momentum: 0.2", std::make_shared<BatchNorm>(4, 0.2)},
      {"type: group_norm, groups: 2, channels: 4", std::make_shared<GroupNorm>(2, 4)},
      {"type: silu", std::make_shared<Activation>("silu")}};
  std::vector<std::string> seen;
  for (const auto& [keys, ours] : cases) {
    CAPTURE(keys);
    const std::shared_ptr<const Layer> made = layer_from(keys);
    CHECK(keys.starts_with("type: " + made->type()));
    CHECK(made->type() == ours->type());
    CHECK(made->options() == ours->options());
    seen.push_back(made->type());
  }
  for (const std::string& name : layer_kinds().names()) {
    CAPTURE(name);  // a layer that has no case
    CHECK(std::find(seen.begin(), seen.end(), name) != seen.end());
  }
  CHECK(layer_from("type: conv2d, in: 2, out: 4, kernel: [3, 5]")->options() ==
        "in: 2, out: 4, kernel: [3, 5], stride: 1, padding: 0, dilation: 1, groups: 1, bias: true");
  CHECK(layer_kinds().get("conv_transpose2d").keys ==
        std::vector<std::string>{"in", "out", "kernel", "stride: 1", "padding: 0", "output_padding: 0", "dilation: 1",
                                 "groups: 1", "bias: true"});
}

TEST_CASE("the rules of a layer's keys are those of its constructor", "[parity]") {
  CHECK_THROWS_WITH(Dropout(1.5), "a layer of type dropout: p: got 1.5, expected a number >= 0 and < 1");
  CHECK_THROWS_AS(Dropout(1.5), ModelError);
  CHECK_THROWS_WITH(Linear(0, 4), "a layer of type linear: in: got 0, expected an integer from 1 to 16777216");
  CHECK_THROWS_WITH(Conv2d(1, 1, Extent{3, 3, 3}),
                    "a layer of type conv2d: kernel: got [3, 3, 3], expected one number, or 2: one per dimension");
  CHECK(refused_layer("type: dropout, p: 1.5") == "m.yaml:3:24: layers[0].p: got 1.5, expected a number >= 0 and < 1");
}

TEST_CASE("what is wrong with a list of layers is said at its line", "[parity]") {
  CHECK(refused("{type: sequential}") == "m.yaml:1:1: layers: missing, expected a list of 1 to 16384 layers");
  CHECK(refused("{type: sequential, layers: []}") ==
        "m.yaml:1:28: layers: got [], expected a list of 1 to 16384 layers");
  CHECK(refused("{type: sequential, layers: 3}") == "m.yaml:1:28: layers: got 3, expected a list of mappings");
  CHECK_THAT(refused_layer("type: Linaer, in: 6, out: 3"),
             Catch::Contains("m.yaml:3:12: layers[0].type: there is no layer 'Linaer'; there are: linear, ") &&
                 Catch::Contains("silu; did you mean 'linear'?"));
  CHECK_THAT(refused_layer("type: linear, in: 6, out: 3, bais: false"),
             Catch::Contains("m.yaml:3:35: layers[0].bais: got an unknown key, expected one of type, name, inputs, "
                             "outputs, in, out, bias; did you mean 'bias'?"));
  CHECK_THAT(refused_layer("type: linear, in: 6, out: 3, in_features: 6"), Catch::Contains("; did you mean 'in'?"));
  CHECK(refused_layer("type: linear, out: 3") ==
        "m.yaml:3:5: layers[0].in: missing, expected an integer from 1 to 16777216");
  CHECK_THAT(refused_layer("type: add, p: 1"), Catch::Contains("expected one of type, name, inputs, outputs"));
  CHECK(refused_layer("type: linear, in: 6, out: 3, name: a b") ==
        "m.yaml:3:41: layers[0].name: got a b, expected a name of letters, digits, '.', '_' and '-'");
  CHECK(refused_layer("type: group_norm, groups: 4, channels: 6") ==
        "m.yaml:3:5: layers[0]: a group_norm layer has 6 channels in 4 groups; the groups must divide the channels");
}

TEST_CASE("what does not fit together names the line of the layer", "[parity]") {
  const auto with = [](const std::string& lines) {
    return refused("type: sequential\nlayers:\n  - {type: linear, in: 6, out: 16}\n" + lines);
  };
  CHECK(with("  - {type: relu}\n  - {type: linear, in: 32, out: 3}\n") ==
        "m.yaml:5:5: layers[2]: layer '2' (linear): a linear layer of width 32 got x Float [4, 16]; it expects a "
        "floating-point entry whose last dimension is 32");
  CHECK(with("  - {type: relu, inputs: [y]}\n") ==
        "m.yaml:4:5: layers[1]: layer '1' (relu) reads the entry 'y', which nothing before it writes; there are: "
        "targets, x");
  CHECK(with("  - {type: linear, name: '0', in: 16, out: 3}\n") ==
        "m.yaml:4:5: layers[1]: layer '0' (linear): another layer has this name");
  CHECK(with("  - {type: relu, outputs: [a, b]}\n") ==
        "m.yaml:4:5: layers[1]: layer '1' (relu) describes 1 outputs, but 2 names are given: a, b");
  CHECK(with("  - {type: linear, in: 16, out: 3, outputs: [y]}\n  - {type: linear, in: 16, out: 3}\n") ==
        "m.yaml:4:5: layers[1]: layer '1' (linear): no loss depends on its output 'y', so 1.weight would not be "
        "trained; let a layer or a head read it, or freeze it (train.freeze)");
  CHECK_THAT(
      with("  - {type: relu}\n"),
      Catch::StartsWith("m.yaml:4:5: layers[1]: the loss mean_squared_error does not fit the model and its data: "));
}

TEST_CASE("sizes of a list that no machine has are refused before they overflow", "[parity]") {
  const std::string image = "  - {type: conv_transpose1d, in: 6, out: 6, kernel: 1, stride: 16777216}\n";
  const Model model = model_from("type: sequential\nlayers:\n" + image + image + image);
  EntrySpec x{"x", at::kFloat, {4, 6, 3}, /*differentiable=*/false}, targets = x;
  targets.name = "targets";
  const Losses losses = {loss_kinds().get("mean_squared_error").make({})};
  CHECK_THROWS_WITH(
      describe_model(model, {x, targets}, losses),
      "m.yaml:4:5: layers[1]: layer '1' (conv_transpose1d): its output x Float [4, 6, 562949953421313] has "
      "more than 2^38 elements for a micro-batch; make it smaller");
}

TEST_CASE("layers that compute with fractions refuse integers, and targets have to be the data's", "[parity]") {
  const auto with = [](const std::string& first) {
    return refused("type: sequential\nlayers:\n  - {" + first + "}\n  - {type: linear, in: 6, out: 3}\n");
  };
  EntrySpec tokens{"tokens", at::kLong, {4, 6}, /*differentiable=*/false};
  for (const std::string type : {"dropout, p: 0.5", "gelu"}) {
    const Model model = model_from("type: sequential\nlayers:\n  - {type: " + type + ", inputs: [tokens]}\n");
    EntrySpec targets{"targets", at::kFloat, {4, 6}, /*differentiable=*/false};
    CHECK_THROWS_WITH(describe_model(model, {tokens, targets}, {loss_kinds().get("mean_squared_error").make({})}),
                      Catch::EndsWith("layer got tokens Long [4, 6]; it expects a floating-point entry"));
  }
  CHECK_THAT(with("type: linear, in: 6, out: 3, outputs: [targets]"),
             Catch::StartsWith("m.yaml:3:5: layers[0]: layer '0' (linear) writes 'targets', with which the loss"));
}

TEST_CASE("layers of a family have the place of the model", "[parity]") {
  CHECK_THAT(refused("{type: mlp, inputs: 5, width: 4, outputs: 3}"),
             Catch::StartsWith("m.yaml:1:1: layer 'fc.0' (linear): a linear layer of width 5 got x Float [4, 6]"));
}

namespace {

struct ScaleConfig {
  double by = 2;
};
void fields(FieldVisitor& visit, ScaleConfig& config) {
  visit("by", value(config.by));
}
class Scale : public LayerOf<ScaleConfig> {
 public:
  explicit Scale(const ScaleConfig& config) : LayerOf("scale", config) {
    if (config.by == 0) throw std::out_of_range("nothing would be left");
  }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    if (config().by < 0) throw std::runtime_error("broken on purpose");
    return described(inputs);
  }
  Tensors forward(const Tensors& inputs, LayerContext&) const override { return {inputs[0] * config().by}; }
};

}  // namespace

TEST_CASE("a layer that somebody adds to the table is one of a list, and its exceptions have its place", "[parity]") {
  ModelTables tables;
  tables.layers.add(layer_kind<Scale>("scale", "x times a number"));
  CHECK(tables.layers.get("scale").keys == std::vector<std::string>{"by: 2"});
  const auto with = [](const std::string& keys) {
    return "type: sequential\nlayers:\n  - {type: scale" + keys + "}\n  - {type: linear, in: 6, out: 3}\n";
  };
  CHECK(model_from(with(", by: 3"), tables).layers[0].layer->options() == "by: 3");
  CHECK(refused(with(""), tables) == "");
  CHECK(refused(with(", by: 0"), tables) ==
        "m.yaml:3:12: layers[0].type: a layer of type scale failed to be made: nothing would be left");
  CHECK(refused(with(", by: -1"), tables) ==
        "m.yaml:3:5: layers[0]: layer '0' (scale): its describe() failed: broken on purpose");
  CHECK_THROWS_WITH(tables.layers.add(layer_kind<Scale>("linear", "")), Catch::Contains("'linear' is there already"));
  tables.activations.add({"scale", "an activation of that name", [](const at::Tensor& x) { return x; }});
  CHECK_THAT(refused(with(""), tables), Catch::Contains("the layer 'scale' is there already"));
}

TEST_CASE("a resume compares a list of layers key by key, and names the layer's line", "[parity]") {
  const auto config_of = [](const std::string& dropout) {
    return read_config(
        load_config_text("train: {steps: 2, batch: 8, loss: mean_squared_error}\ndata: {type: b}\nmodel:\n"
                         "  type: sequential\n  layers:\n  - {type: linear, in: 6, out: 3}\n" +
                             dropout,
                         "m.yaml"));
  };
  const auto state_with = [&](const std::string& dropout) {
    TrainerState state;
    state.step = 1;
    state.numerics = numerics_of(config_of(dropout));
    return state;
  };
  const TrainerState saved = state_with("  - {type: dropout, p: 0.1}");
  CHECK(saved.numeric("model.layers[1].p") == "0.1");
  const auto resume = [&](const std::string& dropout, const ResumeRules& rules = {}) {
    return check_resumable(config_of(dropout), state_with(dropout), saved, "DIR", rules).changed;
  };
  CHECK(resume("  - p: 0.10  # as it was\n    type: dropout").empty());
  const std::string other = "  - {type: dropout, p: 0.2}";
  CHECK_THROWS_WITH(resume(other), Catch::StartsWith("m.yaml:7:24: model.layers[1].p: got 0.2, expected 0.1") &&
                                       Catch::EndsWith("knowingly: --change 'model.layers[1].p'"));
  for (const char* change : {"model.layers[1].p", "model.layers[1]", "model.layers", "model"})
    CHECK(resume(other, {.changes = {change}}) == std::vector<std::string>{"model.layers[1].p: 0.2 instead of 0.1"});
  CHECK_THROWS_WITH(resume(""), Catch::Contains("model.layers[1].type: got nothing, expected dropout") &&
                                    Catch::EndsWith("--change 'model.layers[1].type'"));
}
