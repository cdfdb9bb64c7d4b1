// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/low_rank.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "runtime/config/field.hpp"
#include "runtime/layer/onnx_graph.hpp"
#include "runtime/layer/parts.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {

double LowRankConfig::scale() const {
  const auto of = static_cast<double>(rank);
  return alpha / (rank_stabilized ? std::sqrt(of) : of);
}

void fields(FieldVisitor& visit, LowRankConfig& config) {
  visit("rank", value(config.rank, between<std::int64_t>(1, 1 << 16)));
  visit("alpha", value(config.alpha, above(0.0)));
  visit("rank_stabilized", value(config.rank_stabilized));
  visit("dropout", value(config.dropout, fraction_below_one()));
  visit("targets", list(config.targets, not_empty(), "at least one name of a linear part, or all-linear"));
  visit("modules_to_save", list(config.modules_to_save, not_empty()));
}

std::string module_of(const std::string& parameter) {
  return parameter.substr(0, std::min(parameter.rfind('.'), parameter.size()));
}

bool is_named(const std::string& module, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return module == name || module.ends_with("." + name); });
}

std::string LowRank::first_of(const std::string& part) {
  return part_of(part, "lora_A.weight");
}

std::string LowRank::second_of(const std::string& part) {
  return part_of(part, "lora_B.weight");
}

at::Tensor LowRank::output(LayerContext& context, const at::Tensor& x, const std::string& part) const {
  const at::Tensor narrow = linear(context, dropout(context, x, dropout_), first_of(part), "");
  return linear(context, narrow, second_of(part), "") * scale_;
}

std::string LowRank::onnx(OnnxGraph& graph, const std::string& x, const std::string& part) const {
  const std::string narrow = onnx_linear(graph, x, first_of(part), "");
  return graph.add("Mul", {onnx_linear(graph, narrow, second_of(part), ""), graph.number(scale_)});
}

}  // namespace lockstep
