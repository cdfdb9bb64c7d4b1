// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/recurrent_layers.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "runtime/config/field.hpp"
#include "runtime/layer/onnx_graph.hpp"
#include "runtime/layer/quiet.hpp"

namespace lockstep {
namespace {

/// Of each row, the first `lengths` positions backwards, what is behind them as it was: its own inverse. x [rows,
/// length, ...].
at::Tensor backwards(const at::Tensor& x, const at::Tensor& lengths) {
  const at::Tensor time = at::arange(x.size(1), lengths.options());
  const at::Tensor each = lengths.unsqueeze(1);
  const at::Tensor from = at::where(time < each, each - 1 - time, time);
  return x.gather(1, from.unsqueeze(2).expand_as(x));
}

/// bool [rows, length, 1]: what is within the row.
at::Tensor within(const at::Tensor& x, const at::Tensor& lengths) {
  return (at::arange(x.size(1), lengths.options()) < lengths.unsqueeze(1)).unsqueeze(2);
}

void expect_time(const Layer& layer, const EntrySpec& input, std::int64_t width) {
  if (input.sizes.size() != 3)
    throw ModelError(concat("a ", layer.type(), " layer got ", to_string(input),
                            "; it expects a floating-point entry [rows, length, ", width, "]"));
  expect_width(layer, input, width);
}

}  // namespace

/// What one direction, or both together, put out.
struct Recurrent::Direction {
  at::Tensor outputs;  // [rows, length, width]
  Tensors state;       // [directions, rows, width]: h and, of an LSTM, c
};

void fields(FieldVisitor& visit, RecurrentConfig& config) {
  visit("in", size_field(config.in).required());
  visit("width", size_field(config.width).required());
  visit("bidirectional", value(config.bidirectional));
  visit("carry", value(config.carry));
  visit("last_only", value(config.last_only));
  visit("number", value(config.number, between(0, 1 << 14)));
}

Recurrent::Recurrent(const RecurrentConfig& config) : LayerOf(to_string(config.kind), config) {
  if (config.carry && config.bidirectional)
    throw ModelError(concat(
        "a ", type(), " layer has carry and bidirectional; what is read backwards has no past: ", "use one of them"));
}

std::vector<std::string> Recurrent::parameter_names(bool reverse) const {
  std::vector<std::string> names;
  for (const char* what : {"weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l"})
    names.push_back(concat(what, config().number, reverse ? "_reverse" : ""));
  return names;
}

LayerDescription Recurrent::describe(const std::vector<EntrySpec>& inputs) const {
  if (inputs.size() != 2) expect_inputs(*this, inputs, 1);
  expect_time(*this, inputs[0], config().in);
  const std::int64_t width = config().width, rows = gates() * width;
  if (inputs.size() == 2) {
    if (inputs[1].dtype != at::kLong || inputs[1].sizes.size() != 1)
      throw ModelError(concat("a ", type(), " layer got ", to_string(inputs[1]),
                              " for the lengths of its rows; it expects int64 [rows]"));
    if (config().carry)
      throw ModelError(concat("a ", type(), " layer with carry got ", inputs[1].name,
                              "; rows that go on in the next batch are all of one length"));
  }
  LayerDescription description;
  const Init init = Init::uniform(1.0 / std::sqrt(static_cast<double>(width)));
  for (const bool reverse : {false, true}) {
    if (reverse && !config().bidirectional) break;
    const std::vector<std::string> names = parameter_names(reverse);
    description.parameters.push_back({names[0], {rows, config().in}, init, ""});
    description.parameters.push_back({names[1], {rows, width}, init, ""});
    description.parameters.push_back({names[2], {rows}, init, ""});
    description.parameters.push_back({names[3], {rows}, init, ""});
  }
  EntrySpec output = inputs[0];
  output.sizes.back() = config().bidirectional ? 2 * width : width;
  if (config().last_only) output.sizes.erase(output.sizes.begin() + 1);
  description.outputs = {output};
  if (config().carry) {
    description.states.push_back({state_name("h"), {width}});
    if (config().kind == RecurrentKind::lstm) description.states.push_back({state_name("c"), {width}});
  }
  return description;
}

Recurrent::Direction Recurrent::run(const at::Tensor& x, const Tensors& parameters, LayerContext& context,
                                    bool both) const {
  const at::Tensor zeros = at::zeros({both ? 2 : 1, x.size(0), config().width}, x.options());
  const auto start = [&](const char* name) {
    return config().carry ? context.state(state_name(name)).to(x.scalar_type()).unsqueeze(0) : zeros;
  };
  Direction direction;
  const Quiet quiet;  // cuDNN would rather have all weights in one piece, and says so each time
  if (config().kind == RecurrentKind::lstm) {
    const auto [outputs, h, c] =
        at::lstm(x, {start("h"), start("c")}, parameters, /*has_biases=*/true, /*num_layers=*/1, /*dropout=*/0.0,
                 context.training(), both, /*batch_first=*/true);
    direction = {outputs, {h, c}};
  } else {
    const auto [outputs, h] = at::gru(x, start("h"), parameters, true, 1, 0.0, context.training(), both, true);
    direction = {outputs, {h}};
  }
  if (config().carry) {
    context.set_state(state_name("h"), direction.state[0].squeeze(0));
    if (direction.state.size() > 1) context.set_state(state_name("c"), direction.state[1].squeeze(0));
  }
  return direction;
}

Tensors Recurrent::forward(const Tensors& inputs, LayerContext& context) const {
  const at::Tensor& x = inputs[0];
  const bool both = config().bidirectional, has_lengths = inputs.size() == 2;
  std::vector<Tensors> parameters;
  for (const bool reverse : {false, true}) {
    if (reverse && !both) break;
    parameters.emplace_back();
    for (const std::string& name : parameter_names(reverse))
      parameters.back().push_back(context.leaf(name, x.scalar_type()));
  }
  const double products = static_cast<double>(x.size(0) * x.size(1)) *
                          static_cast<double>(gates() * config().width * (config().in + config().width));
  const bool in_graph = parameters[0][0].requires_grad() || x.requires_grad();
  context.count_products(both ? 2 * products : products, in_graph ? 2 : 0);

  if (!has_lengths) {
    Tensors all = parameters[0];
    if (both) all.insert(all.end(), parameters[1].begin(), parameters[1].end());
    const Direction direction = run(x, all, context, both);
    if (!config().last_only) return {direction.outputs};
    const at::Tensor& h = direction.state[0];
    return {both ? at::cat({h[0], h[1]}, -1) : h[0]};
  }
  // Forwards, what lies behind a row changes nothing in it; backwards, each row is turned round within its length.
  const at::Tensor& lengths = inputs[1];
  std::vector<at::Tensor> outputs;
  for (std::size_t reverse = 0; reverse < parameters.size(); ++reverse) {
    const at::Tensor turned = reverse ? backwards(x, lengths) : x;
    const at::Tensor computed = run(turned, parameters[reverse], context, /*both=*/false).outputs;
    if (config().last_only) {
      const at::Tensor at_end = (lengths - 1).view({-1, 1, 1}).expand({-1, 1, config().width});
      outputs.push_back(computed.gather(1, at_end).squeeze(1));
    } else {
      outputs.push_back(reverse ? backwards(computed, lengths) : computed);
    }
  }
  const at::Tensor together = outputs.size() == 1 ? outputs[0] : at::cat(outputs, -1);
  if (config().last_only) return {together};
  return {at::where(within(x, lengths), together, at::zeros({}, together.options()))};
}

std::vector<std::string> Recurrent::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  const bool is_lstm = config().kind == RecurrentKind::lstm;
  // Gates: i, f, g, o here, i, o, f, g there; r, z, n here, z, r, n there.
  const OnnxGraph::Sizes order = is_lstm ? OnnxGraph::Sizes{0, 3, 1, 2} : OnnxGraph::Sizes{1, 0, 2};
  const auto in_order = [&](const std::string& name) {
    const std::vector<at::Tensor> blocks = graph.value(name).chunk(gates(), 0);
    std::vector<at::Tensor> ordered;
    for (const std::int64_t gate : order) ordered.push_back(blocks[static_cast<std::size_t>(gate)]);
    return at::cat(ordered);
  };
  std::vector<at::Tensor> of_inputs, of_states, biases;
  for (const bool reverse : {false, true}) {
    if (reverse && !config().bidirectional) break;
    const std::vector<std::string> names = parameter_names(reverse);
    of_inputs.push_back(in_order(names[0]));
    of_states.push_back(in_order(names[1]));
    biases.push_back(at::cat({in_order(names[2]), in_order(names[3])}));
  }
  OnnxGraph::Attributes attributes = {{"hidden_size", config().width},
                                      {"direction", config().bidirectional ? "bidirectional" : "forward"}};
  if (!is_lstm) attributes.emplace_back("linear_before_reset", std::int64_t{1});  // n = tanh(W x + b + r (R h + c))
  OnnxGraph::Names all = {graph.permute(inputs[0], {1, 0, 2}), graph.stored("W", at::stack(of_inputs)),
                          graph.stored("R", at::stack(of_states)), graph.stored("B", at::stack(biases))};
  if (inputs.size() == 2) all.push_back(graph.cast(inputs[1], at::kInt));
  const OnnxGraph::Names made = graph.add(is_lstm ? "LSTM" : "GRU", all, attributes, 2);
  if (config().last_only) return {graph.reshape(graph.permute(made[1], {1, 0, 2}), {0, -1})};
  return {graph.reshape(graph.permute(made[0], {2, 0, 1, 3}), {0, 0, -1})};
}

void fields(FieldVisitor& visit, LengthsConfig& config) {
  visit("pad", value(config.pad));
}

LayerDescription Lengths::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  if (inputs[0].dtype != at::kLong || inputs[0].sizes.size() != 2)
    throw ModelError(concat("a lengths layer got ", to_string(inputs[0]), "; it expects int64 tokens [rows, length]"));
  return described({{"", at::kLong, {inputs[0].sizes[0]}, /*differentiable=*/false}});
}

Tensors Lengths::forward(const Tensors& inputs, LayerContext&) const {
  const at::Tensor& tokens = inputs[0];
  const at::Tensor numbers = at::arange(1, tokens.size(1) + 1, tokens.options());
  return {at::where(tokens != config().pad, numbers, at::ones({}, tokens.options())).amax(1)};
}

std::vector<std::string> Lengths::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  const std::string numbers = graph.add("Add", {graph.range(graph.size_of(inputs[0], 1)), graph.integer(1)});
  const std::string is_pad = graph.add("Equal", {inputs[0], graph.integer(config().pad)});
  return {graph.add("ReduceMax", {graph.add("Where", {is_pad, graph.integer(1), numbers})},
                    {{"axes", OnnxGraph::Sizes{1}}, {"keepdims", std::int64_t{0}}})};
}

void fields(FieldVisitor& visit, PositionsConfig& config) {
  visit("context", size_field(config.context).required());
  visit("width", size_field(config.width).required());
}

LayerDescription Positions::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_time(*this, inputs[0], config().width);
  if (inputs[0].sizes[1] > config().context)
    throw ModelError(concat("a positions layer of context ", config().context, " got ", to_string(inputs[0]),
                            "; it expects at most so many positions"));
  return described({inputs[0]}, part_);
}

Tensors Positions::forward(const Tensors& inputs, LayerContext& context) const {
  const at::Tensor numbers = at::arange(inputs[0].size(1), inputs[0].options().dtype(at::kLong));
  return {inputs[0] + part_(context, numbers)};
}

std::vector<std::string> Positions::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  return {graph.add("Add", {inputs[0], part_.onnx(graph, graph.range(graph.size_of(inputs[0], 1)))})};
}

void fields(FieldVisitor& visit, SelfAttentionConfig& config) {
  visit("width", size_field(config.width).required());
  visit("heads", size_field(config.heads).required());
  visit("causal", value(config.causal));
  visit("dropout", value(config.dropout, fraction_below_one()));
}

SelfAttention::SelfAttention(const SelfAttentionConfig& config)
    : LayerOf("self_attention", config),
      attention_{.heads = config.heads, .dropout = config.dropout, .causal = config.causal},
      out_{"out_proj", config.width, config.width, {.bias_init = Init::zeros()}} {
  if (config.width % config.heads != 0)
    throw ModelError(concat("a self_attention layer has width ", config.width, " and ", config.heads,
                            " heads; every head takes an equal share of the width"));
}

LayerDescription SelfAttention::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_time(*this, inputs[0], config().width);
  const std::int64_t width = config().width;
  LayerDescription description;
  // Glorot, Bengio (2010), of the three together, as torch.nn has it.
  description.parameters.push_back(
      {"in_proj_weight", {3 * width, width}, Init::uniform(std::sqrt(6.0 / static_cast<double>(4 * width))), ""});
  description.parameters.push_back({"in_proj_bias", {3 * width}, Init::zeros(), ""});
  out_.describe(description);
  description.outputs = {inputs[0]};
  return description;
}

Tensors SelfAttention::forward(const Tensors& inputs, LayerContext& context) const {
  const std::vector<at::Tensor> qkv =
      linear(context, inputs[0], "in_proj_weight", "in_proj_bias").split(config().width, 2);
  return {out_(context, attention_(context, qkv[0], qkv[1], qkv[2]))};
}

std::vector<std::string> SelfAttention::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  const std::int64_t width = config().width;
  const OnnxGraph::Names qkv =
      graph.split(onnx_linear(graph, inputs[0], "in_proj_weight", "in_proj_bias"), {width, width, width}, 2);
  return {out_.onnx(graph, attention_.onnx(graph, width, qkv[0], qkv[1], qkv[2]))};
}

}  // namespace lockstep
