// SPDX-License-Identifier: Apache-2.0
#include "models/lora.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/config/field.hpp"
#include "runtime/layer/onnx_graph.hpp"

namespace lockstep {
namespace {

/// A layer of the base, and the adapters of its linear parts.
class Adapted : public Layer {
 public:
  /// `prefix`: of its parameters' full names. `is_last`: kAllLinear does not mean it.
  Adapted(std::shared_ptr<const Layer> base, std::string prefix, bool is_last, const LowRankConfig& config)
      : base_(std::move(base)),
        prefix_(std::move(prefix)),
        is_last_(is_last),
        config_(config),
        low_rank_(config),
        options_(base_->options() + "; lora " + line_of([this](FieldVisitor& visit) { fields(visit, config_); })) {}

  std::string type() const override { return base_->type(); }
  std::string options() const override { return options_; }
  void end_step(std::vector<Buffer>& buffers, const std::vector<Tensors>& collected) const override {
    base_->end_step(buffers, collected);
  }

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    LayerDescription description = base_->describe(inputs);
    if (!description.buffers.empty())
      throw ModelError(concat("model.lora: a ", type(), " layer has the running statistics ",
                              description.buffers.front().name, ", which change in training and are in no adapter"));
    std::vector<ParameterSpec> parameters;
    for (ParameterSpec& parameter : description.parameters) {
      const std::string module = module_of(prefix_ + parameter.name);
      parameter.is_base = !is_named(module, config_.modules_to_save);
      const bool adapts = parameter.is_base && parameter.linear && is_target(module, parameter);
      parameters.push_back(std::move(parameter));
      if (adapts) add_adapter(parameters);
    }
    description.parameters = std::move(parameters);
    return description;
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    context.lend_adapter(low_rank_);
    return base_->forward(inputs, context);
  }

  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override {
    graph.lend_adapter(low_rank_);
    return base_->onnx(graph, inputs);
  }

 private:
  bool is_target(const std::string& module, const ParameterSpec& weight) const {
    const bool tied = !weight.tied_to.empty();
    if (is_named(module, config_.targets)) {
      if (tied)
        throw ModelError(concat("model.lora.targets: ", module, " has no weight of its own, it is tied to ",
                                weight.tied_to, "; leave it out, or untie it (model.tie_embeddings: false)"));
      return true;
    }
    return !tied && !is_last_ &&
           std::find(config_.targets.begin(), config_.targets.end(), kAllLinear) != config_.targets.end();
  }

  /// Behind the weight that stands last.
  void add_adapter(std::vector<ParameterSpec>& parameters) const {
    const ParameterSpec& weight = parameters.back();
    std::int64_t out = weight.sizes[0], in = weight.sizes[1];
    if (weight.linear == WeightLayout::in_out) std::swap(in, out);
    const std::string part = weight.name == "weight" ? "" : module_of(weight.name);
    parameters.push_back(
        {LowRank::first_of(part), {config_.rank, in}, Init::uniform(1.0 / std::sqrt(static_cast<double>(in))), ""});
    parameters.push_back({LowRank::second_of(part), {out, config_.rank}, Init::zeros(), ""});
  }

  std::shared_ptr<const Layer> base_;
  std::string prefix_;
  bool is_last_;
  LowRankConfig config_;
  LowRank low_rank_;
  std::string options_;
};

}  // namespace

Model with_adapters(Model model, const LowRankConfig& config) {
  for (LayerSpec& layer : model.layers)
    layer.layer = std::make_shared<Adapted>(layer.layer, layer.full_name(""), &layer == &model.layers.back(), config);
  model.adapter = config;
  return model;
}

}  // namespace lockstep
