// SPDX-License-Identifier: Apache-2.0
#include "runtime/profile/layer_bench.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kNoise = 1 << 16;

/// Reads a tensor of the host, as if the neighbouring layer had just made it.
void touch(const at::Tensor& tensor) {
  constexpr std::size_t line = 64;
  if (!tensor.device().is_cpu()) return;
  const auto* bytes = static_cast<const volatile unsigned char*>(tensor.const_data_ptr());
  for (std::size_t i = 0; i < tensor.nbytes(); i += line) static_cast<void>(bytes[i]);
}

}  // namespace

at::Tensor bench_noise() {
  const RandomScope scope(mix_seed(1, 0, 0, "profile"));
  return at::randn({kNoise});
}

LayerBench::LayerBench(const GroupToMeasure& what, int layer, const at::Tensor& noise, MemoryPool& pool,
                       Stopwatch& watch)
    : graph_(what.graph),
      layer_(layer),
      options_(what.options),
      data_of_rows_(what.data),
      has_backward_(what.partition.topology.has_backward[layer]),
      noise_(noise),
      pool_(pool),
      weights_(graph_, what.partition, {StageId(layer)},
               {options_.stage.seed, options_.stage.device, draws_nothing, options_.make_updater}, pool),
      watch_(watch) {
  const at::NoGradGuard no_grad;
  StageOptions stage = options_.stage;
  stage.recompute.assign(static_cast<std::size_t>(graph_.layer_count()), true);  // where forward() asks for it
  stage_ =
      std::make_unique<Stage>(graph_, what.partition, StageId(layer), what.losses, stage, weights_.of(StageId(layer)));
  for (Parameter* parameter : weights_.parameters()) fill(parameter->value, graph_.parameters[parameter->index].init);
  header_.mode = Mode::train;
  header_.step = 1;
  header_.slices.assign(kBenchMicroBatches, what.rows);
  for (const GraphHead& head : graph_.heads) header_.heads.push_back({0, static_cast<double>(what.rows), head.weight});
  make_data();
}

/// Values of the size that training starts from, without drawing each of them.
void LayerBench::fill(at::Tensor& value, const Init& init) const {
  switch (init.kind) {
    case Init::Kind::zeros: value.zero_(); return;
    case Init::Kind::ones: value.fill_(1.0); return;
    case Init::Kind::normal: scatter_noise(value, init.scale); return;
    case Init::Kind::uniform: scatter_noise(value, init.scale / std::sqrt(3.0)); return;
  }
}

void LayerBench::scatter_noise(const at::Tensor& value, double scale) const {
  const at::Tensor flat = value.view({-1}), scaled = (noise_ * scale).to(value.options());
  for (std::int64_t begin = 0; begin < flat.numel(); begin += kNoise) {
    const std::int64_t count = std::min(kNoise, flat.numel() - begin);
    flat.narrow(0, begin, count).copy_(scaled.narrow(0, 0, count));
  }
}

at::Tensor LayerBench::made_of(const at::IntArrayRef sizes, at::ScalarType dtype) const {
  const at::Tensor value = at::empty(sizes, at::TensorOptions(dtype).device(options_.stage.device));
  if (value.numel() > 0) scatter_noise(value, 1.0);
  return value;
}

at::Tensor LayerBench::made_of(int value) const {
  const EntrySpec& entry = graph_.values[value].spec;
  const auto on_device = at::TensorOptions(entry.dtype).device(options_.stage.device);
  if (!at::isFloatingType(entry.dtype)) {
    const auto source = std::find(graph_.sources.begin(), graph_.sources.end(), value) - graph_.sources.begin();
    const auto at = static_cast<std::size_t>(source);
    if (at < data_of_rows_.size() && !graph_.is_for_losses(value)) return data_of_rows_[at].to(on_device.device());
    // Of integers whose range is not known 0 fits everywhere.
    if (entry.below <= 1 || entry.dtype == at::kBool) return at::zeros(entry.sizes, on_device);
    const RandomScope scope(mix_seed(1, 1, 0, "profile"));
    return at::randint(entry.below, entry.sizes, at::kLong).to(on_device);
  }
  if (!graph_.is_for_losses(value)) return made_of(entry.sizes, options_.stage.precision);
  return made_of(entry.sizes, entry.dtype).sigmoid_();  // probabilities are targets of some losses
}

/// Data lies in the batch for the whole step, whoever reads it: nothing that the layer keeps.
void LayerBench::make_data() {
  std::set<int> ids;
  for (const int id : graph_.inputs[layer_]) ids.insert(id);
  for (const GraphHead& head : graph_.heads)
    if (head.layer == layer_) {
      ids.insert({head.targets, head.output});
      if (head.weights >= 0) ids.insert(head.weights);
    }
  for (const int id : graph_.outputs[layer_]) ids.erase(id);
  for (const int id : ids) {
    if (graph_.values[id].producer < 0)
      data_.emplace_back(id, made_of(id));
    else
      inputs_.push_back(id);
  }
}

LayerBench::Values LayerBench::make_inputs() const {
  Values made;
  for (const int id : inputs_) made.emplace_back(id, made_of(id));
  return made;
}

/// One for every use outside: the losses here make their own.
std::vector<LayerBench::OuterGradient> LayerBench::make_gradients() const {
  std::vector<OuterGradient> made;
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const int id = graph_.outputs[layer_][i];
    if (!graph_.values[id].requires_grad) continue;
    for (const Use& use : graph_.values[id].uses)
      if (use.layer < graph_.layer_count()) made.push_back({id, use, made_of(outputs_[i].first, outputs_[i].second)});
  }
  return made;
}

void LayerBench::put(int micro_batch, const Values& inputs) {
  for (const auto* list : {&std::as_const(data_), &inputs})
    for (const auto& [id, tensor] : *list) stage_->put_value(micro_batch, id, tensor);
}

void LayerBench::put(int micro_batch, const std::vector<OuterGradient>& gradients) {
  for (const OuterGradient& gradient : gradients)
    stage_->put_gradient(micro_batch, gradient.value, gradient.use, gradient.tensor);
}

void LayerBench::forward(int micro_batch, const Values& inputs, bool recompute) {
  put(micro_batch, inputs);
  stage_->forward(micro_batch, recompute);
  if (outputs_.empty()) {
    const Tensors values =
        stage_->values_of({StageId(layer_), StageId(layer_), graph_.outputs[layer_], {}}, micro_batch);
    for (const at::Tensor& value : values) outputs_.emplace_back(value.sizes().vec(), value.scalar_type());
  }
  stage_->release_values(micro_batch);
}

void LayerBench::input_grad(int micro_batch) {
  stage_->input_grad(micro_batch);
  stage_->release_gradients(micro_batch);
}

void LayerBench::begin() {
  readings_ = {};
  run_.emplace(watch_, layer_, 1, readings_);
  stage_->begin(header_, *run_);
}

const StageReport& LayerBench::report() {
  run_->meter.settle();
  return run_->meter.report();
}

template <typename Work>
double LayerBench::workspace_of(const Work& work) {
  const std::int64_t before = pool_.bytes();
  pool_.reset_peak();
  work();
  return static_cast<double>(pool_.peak_bytes() - before);
}

/// Micro-batch 0 pays for what is made once a step; 1 is measured with I and W apart; 2 is run again in its backward; 3
/// has its I and W in one.
LayerSample LayerBench::bytes() {
  LayerSample sample;
  begin();
  auto first = make_inputs();
  const std::int64_t before_first = pool_.bytes();
  forward(0, first);
  const double first_held = kept_since(before_first);
  auto inputs = make_inputs();
  const std::int64_t before = pool_.bytes();
  sample.forward_workspace_bytes = workspace_of([&] { forward(1, inputs); });
  sample.activation_bytes = std::max(0.0, kept_since(before));
  sample.step_bytes = std::max(0.0, first_held - sample.activation_bytes);
  if (!has_backward_) return sample;

  put(0, make_gradients());
  first.clear();
  input_grad(0);
  stage_->weight_grad(0);  // the parameters' gradients are there from here on

  put(1, make_gradients());
  inputs.clear();  // from now on it shows who keeps them
  sample.input_grad_workspace_bytes = workspace_of([&] { stage_->input_grad(1); });
  stage_->release_gradients(1);
  const std::int64_t after_input_grad = pool_.bytes();
  sample.weight_grad_workspace_bytes = workspace_of([&] { stage_->weight_grad(1); });
  sample.weight_grad_bytes = std::max(0.0, -kept_since(after_input_grad));

  inputs = make_inputs();
  const std::int64_t before_again = pool_.bytes();
  forward(2, inputs, /*recompute=*/true);
  sample.recompute_activation_bytes = std::max(0.0, kept_since(before_again));
  put(2, make_gradients());
  input_grad(2);
  stage_->weight_grad(2);

  forward(3, inputs);
  const auto gradients = make_gradients();  // these and the inputs stay, as they do in a B
  put(3, gradients);
  sample.backward_workspace_bytes = workspace_of([&] { stage_->backward(3); });
  stage_->release_gradients(3);
  stage_->end_step();
  return sample;
}

void LayerBench::run_forward() {
  if (timed_inputs_.empty()) timed_inputs_ = make_inputs();
  for (const auto* list : {&data_, &timed_inputs_})
    for (const auto& [id, tensor] : *list) touch(tensor);
  begin();
  forward(0, timed_inputs_);
}

void LayerBench::run_backward() {
  if (has_backward_) {
    if (timed_gradients_.empty()) timed_gradients_ = make_gradients();
    for (const OuterGradient& gradient : timed_gradients_) touch(gradient.tensor);
    put(0, timed_gradients_);
    input_grad(0);
    stage_->weight_grad(0);
  }
  stage_->end_step();
}

double LayerBench::update(int step) {
  const std::vector<Parameter*>& trained = weights_.trained();
  const auto has_gradient = [](const Parameter* parameter) { return parameter->gradient.defined(); };
  if (!options_.make_updater || trained.empty() || !std::all_of(trained.begin(), trained.end(), has_gradient)) return 0;
  const Stopwatch::Mark begin = watch_.mark();
  if (options_.clip) static_cast<void>(weights_.squared_norms());
  weights_.update(
      1e-4, step,
      options_.clip ? at::full({}, 0.999, at::TensorOptions(at::kDouble).device(options_.stage.device)) : at::Tensor());
  const Stopwatch::Mark end = watch_.mark();
  watch_.wait(begin, end);
  return watch_.us(end) - watch_.us(begin);
}

}  // namespace lockstep
