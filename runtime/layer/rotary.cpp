// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/rotary.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/config/field.hpp"
#include "runtime/device/staging.hpp"
#include "runtime/layer/onnx_graph.hpp"

namespace lockstep {
namespace {

void scaling_fields(FieldVisitor& visit, RotaryConfig& config) {
  using enum RotaryScaling;
  visit("rope_type", value(config.scaling));
  visit("factor", value(config.factor, at_least(1.0)).only_of(config.scaling, {linear, llama3, yarn, longrope}));
  visit("original_max_position_embeddings",
        value(config.original_context, at_least<std::int64_t>(1)).only_of(config.scaling, {llama3, yarn, longrope}));
  visit("attention_factor", value(config.attention_factor, at_least(0.0)).only_of(config.scaling, {yarn, longrope}));
  visit("low_freq_factor", value(config.low_freq_factor, above(0.0)).only_of(config.scaling, {llama3}));
  visit("high_freq_factor", value(config.high_freq_factor, above(0.0)).only_of(config.scaling, {llama3}));
  visit("beta_fast", value(config.beta_fast, above(0.0)).only_of(config.scaling, {yarn}));
  visit("beta_slow", value(config.beta_slow, above(0.0)).only_of(config.scaling, {yarn}));
  visit("short_factor", list(config.short_factor, above(0.0)).only_of(config.scaling, {longrope}));
  visit("long_factor", list(config.long_factor, above(0.0)).only_of(config.scaling, {longrope}));
}

/// theta^(2i / width) for each pair i.
at::Tensor wavelengths(double theta, std::int64_t width, const at::TensorOptions& options) {
  return at::pow(theta, at::arange(0, width, 2, options) / static_cast<double>(width));
}

at::Tensor stretched_as_llama3(const RotaryConfig& config, const at::Tensor& frequency) {
  const auto context = static_cast<double>(config.original_context);
  const at::Tensor length = 2 * std::numbers::pi / frequency;
  const at::Tensor slow = length > context / config.low_freq_factor;
  const at::Tensor between = (length < context / config.high_freq_factor).logical_not() * slow.logical_not();
  const at::Tensor share =
      (context / length - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor);
  const at::Tensor stretched = at::where(slow, frequency / config.factor, frequency);
  return at::where(between, (1 - share) * stretched / config.factor + share * stretched, stretched);
}

at::Tensor stretched_as_yarn(const RotaryConfig& config, std::int64_t width, const at::Tensor& wavelength) {
  const auto context = static_cast<double>(config.original_context), numbers = static_cast<double>(width);
  // The pair that makes so many turns over the context.
  const auto pair = [&](double turns) {
    return numbers * std::log(context / (turns * 2 * std::numbers::pi)) / (2 * std::log(config.theta));
  };
  const double low = std::max(std::floor(pair(config.beta_fast)), 0.0);
  double high = std::min(std::ceil(pair(config.beta_slow)), numbers - 1);
  if (low == high) high += 0.001;
  const at::Tensor kept = 1 - at::clamp((at::arange(width / 2, wavelength.options()) - low) / (high - low), 0, 1);
  return 1.0 / (config.factor * wavelength) * (1 - kept) + 1.0 / wavelength * kept;
}

at::Tensor frequencies(const RotaryConfig& config, std::int64_t width, std::int64_t length,
                       const at::TensorOptions& options) {
  const at::Tensor wavelength = wavelengths(config.theta, width, options);
  switch (config.scaling) {
    case RotaryScaling::none: break;
    case RotaryScaling::linear: return 1.0 / wavelength / config.factor;
    case RotaryScaling::llama3: return stretched_as_llama3(config, 1.0 / wavelength);
    case RotaryScaling::yarn: return stretched_as_yarn(config, width, wavelength);
    case RotaryScaling::longrope: {
      const std::vector<double>& factors = length > config.original_context ? config.long_factor : config.short_factor;
      return 1.0 / (to_device(at::tensor(factors, at::kFloat), options.device()) * wavelength);
    }
  }
  return 1.0 / wavelength;
}

double attention_factor(const RotaryConfig& config) {
  if (config.attention_factor > 0) return config.attention_factor;
  if (config.scaling == RotaryScaling::yarn) return config.factor <= 1 ? 1.0 : 0.1 * std::log(config.factor) + 1.0;
  if (config.scaling == RotaryScaling::longrope && config.factor > 1)
    return std::sqrt(1 + std::log(config.factor) / std::log(static_cast<double>(config.original_context)));
  return 1.0;
}

}  // namespace

void fields(FieldVisitor& visit, RotaryConfig& config) {
  visit("rope_theta", value(config.theta, above(1.0)));
  visit("rope_scaling", keys_below([&config](FieldVisitor& below) { scaling_fields(below, config); }));
}

RotaryTable rotary_table(const RotaryConfig& config, std::int64_t width, std::int64_t length, const at::Tensor& like) {
  const at::TensorOptions options = like.options().dtype(at::kFloat).requires_grad(false);
  const at::Tensor frequency = frequencies(config, width, length, options);
  const at::Tensor angles = at::outer(at::arange(length, options), frequency);
  const double factor = attention_factor(config);
  return {(at::cos(angles) * factor).to(like.scalar_type()), (at::sin(angles) * factor).to(like.scalar_type())};
}

at::Tensor rotated(const at::Tensor& x, const RotaryTable& table) {
  const std::vector<at::Tensor> parts = x.chunk(2, -1);
  return at::cat({parts[0] * table.cosine - parts[1] * table.sine, parts[1] * table.cosine + parts[0] * table.sine},
                 -1);
}

OnnxRotaryTable onnx_rotary_table(OnnxGraph& graph, const RotaryConfig& config, std::int64_t width,
                                  const std::string& length) {
  const auto of_length = [&](std::int64_t some) {
    return graph.constant(frequencies(config, width, some, at::TensorOptions(at::kFloat)));
  };
  std::string frequency = of_length(1);
  if (config.scaling == RotaryScaling::longrope) {
    const std::string is_long = graph.add("Greater", {length, graph.integer(config.original_context)});
    frequency = graph.add("Where", {is_long, of_length(config.original_context + 1), frequency});
  }
  const std::string places = graph.unsqueeze(graph.cast(graph.range(length), at::kFloat), {1});
  const std::string angles = graph.add("Mul", {places, frequency}), factor = graph.number(attention_factor(config));
  return {graph.add("Mul", {graph.add("Cos", {angles}), factor}),
          graph.add("Mul", {graph.add("Sin", {angles}), factor})};
}

std::string onnx_rotated(OnnxGraph& graph, const std::string& x, std::int64_t width, const OnnxRotaryTable& table) {
  const OnnxGraph::Names parts = graph.split(x, {width / 2, width / 2}, -1);
  const auto times = [&](int part, const std::string& by) { return graph.add("Mul", {parts[part], by}); };
  const std::string real = graph.add("Sub", {times(0, table.cosine), times(1, table.sine)});
  const std::string imaginary = graph.add("Add", {times(1, table.cosine), times(0, table.sine)});
  return graph.add("Concat", {real, imaginary}, {{"axis", std::int64_t{-1}}});
}

}  // namespace lockstep
