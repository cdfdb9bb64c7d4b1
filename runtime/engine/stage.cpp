// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/stage.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/base/check.hpp"
#include "runtime/device/staging.hpp"
#include "runtime/engine/layer_contract.hpp"
#include "runtime/engine/remote_links.hpp"
#include "runtime/engine/tensor_math.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

std::string shapes(const Tensors& tensors) {
  std::vector<std::string> texts;
  for (const at::Tensor& tensor : tensors)
    texts.push_back(tensor.defined() ? concat(c10::toString(tensor.scalar_type()), " [", join(tensor.sizes()), "]")
                                     : "none");
  return join(texts);
}

/// What the backward of a numerator starts from, in its precision.
double seed_of(const HeadLoss& head, at::ScalarType dtype) {
  if (dtype == at::kDouble) return head.weight * (1.0 / head.denominator);
  return static_cast<float>(head.weight) * (1.0f / static_cast<float>(head.denominator));
}

/// `work()` of a loss or a metric, which may be anybody's. `what`: "the loss huber".
template <typename Work>
at::Tensor of_head(const std::string& what, const Tensors& on, const Work& work) {
  try {
    return work();
  } catch (Error& error) {
    error.add_place(what);
    throw;
  } catch (const std::exception& error) {
    throw LayerError(concat(what, " failed on ", shapes(on), ": ", short_message(error)));
  }
}

}  // namespace

Stage::Stage(const ModelGraph& graph, const Partition& partition, StageId id, const Losses& losses,
             const StageOptions& options, StageWeights& weights)
    : graph_(graph),
      id_(id),
      replicas_(partition.topology.replicas),
      first_(partition.layers_of(id).first),
      last_(partition.layers_of(id).end),
      has_backward_(partition.topology.has_backward[id.value()]),
      losses_of_heads_(losses),
      options_(options),
      anchor_(at::zeros({}, at::TensorOptions(at::kFloat).device(options.device)).requires_grad_(true)),
      weights_(weights),
      collected_(last_ - first_, options.device) {
  for (int head = 0; head < graph.head_count(); ++head)
    if (partition.stage_of(graph.layer_count() + head) == partition.topology.in_replica(id, 0)) heads_.push_back(head);
}

void Stage::begin(const StepHeader& header, StageRun& run) {
  LOCKSTEP_CHECK(alive_.empty(), "stage ", id_, " still holds micro-batch ", alive_.begin()->first, " of the last run");
  header_ = &header;
  run_ = &run;
}

void Stage::put_value(int micro_batch, int value, at::Tensor tensor) {
  // Data arrives in its own precision: floating inputs are cast here, what losses read stays as it is.
  const bool input = !graph_.is_for_losses(value) && at::isFloatingType(tensor.scalar_type());
  const at::Tensor here = to_device(tensor, options_.device);
  alive_[micro_batch].values[value] = here.to(input ? options_.precision : here.scalar_type()).contiguous();
}

void Stage::put_gradient(int micro_batch, int value, Use use, at::Tensor tensor) {
  alive_[micro_batch].gradients[{value, {use.layer, use.position}}] =
      tensor.defined() ? to_device(tensor, options_.device) : std::move(tensor);
}

void Stage::enter_layer(int layer) const {
  if (options_.links) options_.links->look();
  if (options_.pulse) options_.pulse->enter_layer(layer);
}

void Stage::look(const at::Tensor& value, int layer, int micro_batch, const char* what) {
  if (!options_.check_finite || !at::isFloatingType(value.scalar_type()) || value.numel() == 0) return;
  StageRun* run = run_;
  if (value.device().is_cpu()) {
    if (!all_finite(value)) run->note_non_finite(layer, micro_batch, what);
    return;
  }
  // Both are NaN where any element is, and one pass finds them.
  const auto [least, most] = at::aminmax(value.detach());
  for (const at::Tensor& extreme : {least, most})
    run->readings.add(extreme, [=](std::span<const double> number) {
      if (!std::isfinite(number[0])) run->note_non_finite(layer, micro_batch, what);
    });
}

void Stage::dump(const char* kind, int layer, std::size_t output, int micro_batch, const at::Tensor& tensor) const {
  if (!options_.dump || !options_.dump->wants(*header_)) return;
  const LayerSpec& spec = graph_.layers[layer];
  options_.dump->add(concat(kind, "/", spec.name, "/", spec.outputs[output]), micro_batch, tensor);
}

void Stage::forward(int micro_batch, bool recompute) {
  const StageMeter::Work timed(run_->meter, &StageReport::forward_us);
  MicroBatch& batch = alive_[micro_batch];
  batch.recompute = recompute && !options_.recompute.empty();
  const bool training = header_->mode == Mode::train;
  if (training && has_backward_) batch.islands.resize(last_ - first_);
  for (int layer = first_; layer < last_; ++layer) forward_layer(layer, batch, micro_batch);
  for (const int head : heads_) forward_head(head, batch, micro_batch);
}

void Stage::forward_layer(int layer, MicroBatch& batch, int micro_batch) {
  enter_layer(layer);
  const StageMeter::Layer timed(run_->meter, layer - first_);
  const bool needs_graph = header_->mode == Mode::train && graph_.has_backward[layer];
  Tensors inputs;
  std::vector<std::uint32_t> versions;
  for (const int id : graph_.inputs[layer]) {
    const auto found = batch.values.find(id);
    LOCKSTEP_CHECK(found != batch.values.end(), "layer ", graph_.layers[layer].name, " misses ",
                   graph_.values[id].spec.name, " of micro-batch ", micro_batch);
    at::Tensor leaf = found->second.detach();
    if (needs_graph && graph_.values[id].requires_grad) leaf.requires_grad_(true);
    versions.push_back(leaf._version());
    inputs.push_back(std::move(leaf));
  }
  Island evaluation_only;
  Island& island = batch.islands.empty() ? evaluation_only : batch.islands[layer - first_];
  Tensors outputs = call_layer(layer, inputs, island, needs_graph, micro_batch);
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i]._version() != versions[i])
      throw ModelError(concat(layer_text(graph_.layers[layer]), " wrote to its input '", graph_.layers[layer].inputs[i],
                              "'; a layer may only read its inputs: use the out-of-place operator, or clone first"));
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (needs_graph && graph_.values[graph_.outputs[layer][i]].requires_grad && !outputs[i].requires_grad())
      check_detached(graph_, layer, static_cast<int>(i));
    at::Tensor value = outputs[i].detach().contiguous();
    look(value, layer, micro_batch, "output");
    dump("activation", layer, i, micro_batch, value);
    batch.values[graph_.outputs[layer][i]] = std::move(value);
  }
  for (const int id : graph_.inputs[layer])
    if (graph_.values[id].uses.back().layer == layer) batch.values.erase(id);
  if (!needs_graph) return;
  island.inputs = std::move(inputs);
  island.recompute = batch.recompute && options_.recompute[layer];
  if (!island.recompute) {
    island.outputs = std::move(outputs);
    return;
  }
  // The forward ran in grad mode all the same, so that the second run takes the same way through LibTorch's operators;
  // with its graph go the activations.
  island.leaves.clear();
  island.weight_grads.reset();
}

Tensors Stage::call_layer(int layer, const Tensors& inputs, Island& island, bool needs_graph, int micro_batch,
                          bool recomputing) {
  const LayerSpec& spec = graph_.layers[layer];
  const bool training = header_->mode == Mode::train;
  island.weight_grads = std::make_unique<WeightGradQueue>();
  LayerContext context(weights_.parameters[layer - first_], *island.weight_grads, anchor_, training, options_.precision,
                       recomputing);
  const std::vector<Buffer>& buffers = weights_.buffers[layer - first_];
  context.recompute_attention(options_.recompute_attention);
  context.lend_buffers(buffers);
  if (!buffers.empty()) context.lend_rows(first_row(micro_batch), header_->slices[micro_batch]);  // states are buffers
  const RandomScope random(mix_seed(options_.seed, static_cast<std::uint64_t>(header_->step),
                                    static_cast<std::uint64_t>(micro_batch), spec.name),
                           options_.dropout);
  const at::AutoGradMode grad_mode(needs_graph);
  try {
    Tensors outputs = spec.layer->forward(inputs, context);
    check_outputs(graph_, layer, inputs, outputs);
    MemoryPool::check_limit();
    island.leaves = context.leaves();
    if (!recomputing) run_->meter.counted(context.operations());
    if (training) collected_.add(layer - first_, micro_batch, context);
    return outputs;
  } catch (ModelError& error) {
    error.add_place(layer_text(graph_.layers[layer]));
    throw;
  } catch (Error& error) {
    error.add_place(concat(layer_text(graph_.layers[layer]), " failed in forward on inputs ", shapes(inputs)));
    throw;
  } catch (const std::exception& error) {
    throw LayerError(concat(layer_text(graph_.layers[layer]), " failed in forward on inputs ", shapes(inputs), ": ",
                            short_message(error)));
  }
}

void Stage::forward_head(int head, MicroBatch& batch, int micro_batch) {
  const GraphHead& here = graph_.heads[head];
  const StageMeter::Layer timed(run_->meter, here.layer - first_);
  const bool needs_graph = header_->mode == Mode::train && graph_.values[here.output].requires_grad;
  const at::Tensor& output = batch.values.at(here.output);
  const at::Tensor& targets = batch.values.at(here.targets);
  at::Tensor leaf = output.detach();
  if (needs_graph) leaf.requires_grad_(true);
  const at::AutoGradMode grad_mode(needs_graph);
  const Loss& loss = *losses_of_heads_[head];
  at::Tensor numerator = of_head("the loss " + loss.name(), {output, targets}, [&] {
    if (here.weights < 0) return loss.numerator(leaf, targets);
    const at::Tensor each = loss.numerators(leaf, targets);
    return (each * batch.values.at(here.weights).to(each.scalar_type())).sum();
  });
  run_->readings.add(
      numerator, [run = run_, layer = graph_.layer_count() + head, head, micro_batch](std::span<const double> value) {
        if (!std::isfinite(value[0])) run->note_non_finite(layer, micro_batch, "loss");
        run->losses[{head, micro_batch}] = value[0];
      });
  if (needs_graph) batch.losses.push_back({head, std::move(leaf), std::move(numerator)});
  if (header_->mode == Mode::evaluate && !options_.metrics.empty()) measure_head(head, output, targets, micro_batch);
}

void Stage::measure_head(int head, const at::Tensor& output, const at::Tensor& targets, int micro_batch) {
  const auto& metrics = options_.metrics[static_cast<std::size_t>(head)];
  const Loss& loss = *losses_of_heads_[head];
  const at::Tensor by_class = classes_last(output, loss.class_dimension());
  const at::Tensor wanted = metrics.empty() ? targets : of_head("the loss " + loss.name(), {output, targets}, [&] {
    return loss.for_metrics(output, targets);
  });
  for (std::size_t metric = 0; metric < metrics.size(); ++metric) {
    const at::Tensor state = of_head("the metric " + metrics[metric]->name(), {output, targets},
                                     [&] { return metrics[metric]->state(by_class, wanted); });
    run_->readings.add(
        state, [run = run_, head, metric = static_cast<int>(metric), micro_batch](std::span<const double> numbers) {
          run->metrics.push_back({head, metric, micro_batch, {numbers.begin(), numbers.end()}});
        });
  }
}

Tensors Stage::values_of(const FlowContents& flow, int micro_batch) const {
  Tensors tensors;
  for (const int id : flow.values) tensors.push_back(alive_.at(micro_batch).values.at(id));
  return tensors;
}

Tensors Stage::gradients_of(const FlowContents& flow, int micro_batch) const {
  const auto& gradients = alive_.at(micro_batch).gradients;
  Tensors tensors;
  for (const UseGradient& wanted : flow.gradients) {
    const auto found = gradients.find({wanted.value, {wanted.use.layer, wanted.use.position}});
    tensors.push_back(found == gradients.end() ? at::Tensor() : found->second);
  }
  return tensors;
}

void Stage::release_values(int micro_batch) {
  const auto batch = alive_.find(micro_batch);
  batch->second.values.clear();
  if (batch->second.islands.empty()) alive_.erase(batch);
}

void Stage::release_gradients(int micro_batch) {
  const auto batch = alive_.find(micro_batch);
  batch->second.gradients.clear();
  for (const Island& island : batch->second.islands)
    if (island.weight_grads && !island.weight_grads->empty()) return;  // W is still to come
  alive_.erase(batch);
}

void Stage::loss_gradients(MicroBatch& batch) {
  for (const LossIsland& loss : batch.losses) {
    const StageMeter::Layer timed(run_->meter, graph_.heads[loss.head].layer - first_);
    const HeadLoss& head = header_->heads[loss.head];
    const at::Tensor seed =
        at::full({}, seed_of(head, loss.numerator.scalar_type()), loss.numerator.options().requires_grad(false));
    const Tensors gradient = torch::autograd::grad({loss.numerator}, {loss.input}, {seed});
    batch.gradients[{graph_.heads[loss.head].output, {graph_.layer_count() + loss.head, 0}}] = gradient[0].contiguous();
  }
  batch.losses.clear();
}

at::Tensor Stage::take_gradient(MicroBatch& batch, int value) {
  // From the last reader to the first: the order in which one autograd graph would meet them.
  at::Tensor sum;
  const std::vector<Use>& uses = graph_.values[value].uses;
  for (auto use = uses.rbegin(); use != uses.rend(); ++use) {
    const auto found = batch.gradients.find({value, {use->layer, use->position}});
    if (found == batch.gradients.end()) continue;
    if (found->second.defined()) sum = sum.defined() ? sum + found->second : found->second;
    batch.gradients.erase(found);
  }
  return sum;
}

void Stage::input_grad_layer(int layer, MicroBatch& batch, int micro_batch) {
  enter_layer(layer);
  const StageMeter::Layer timed(run_->meter, layer - first_);
  Island& island = batch.islands[layer - first_];
  if (island.recompute) {
    const StageMeter::Work again(run_->meter, &StageReport::recompute_us);
    island.outputs = call_layer(layer, island.inputs, island, /*needs_graph=*/true, micro_batch, /*recomputing=*/true);
  }
  Tensors roots, seeds;
  {
    at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < island.outputs.size(); ++i) {
      at::Tensor gradient = take_gradient(batch, graph_.outputs[layer][i]);
      dump("gradient", layer, i, micro_batch, gradient);
      if (!gradient.defined() || !island.outputs[i].requires_grad()) continue;
      roots.push_back(island.outputs[i]);
      seeds.push_back(std::move(gradient));
    }
  }
  if (!roots.empty()) {
    Tensors wanted;
    std::vector<int> positions;
    for (int i = 0; i < static_cast<int>(island.inputs.size()); ++i)
      if (island.inputs[i].requires_grad()) {
        wanted.push_back(island.inputs[i]);
        positions.push_back(i);
      }
    for (const ParameterLeaf& leaf : island.leaves) wanted.push_back(leaf.leaf);
    wanted.push_back(anchor_);
    Tensors gradients;
    try {
      gradients = torch::autograd::grad(roots, wanted, seeds, /*retain_graph=*/false, /*create_graph=*/false,
                                        /*allow_unused=*/true);
      MemoryPool::check_limit();
    } catch (Error& error) {
      error.add_place(concat(layer_text(graph_.layers[layer]), " failed in backward on gradients ", shapes(seeds)));
      throw;
    } catch (const std::exception& error) {
      throw LayerError(concat(layer_text(graph_.layers[layer]), " failed in backward on gradients ", shapes(seeds),
                              ": ", short_message(error)));
    }
    for (std::size_t i = 0; i < positions.size(); ++i) {
      if (!gradients[i].defined()) continue;
      at::Tensor gradient = gradients[i].contiguous();
      look(gradient, layer, micro_batch, "input gradient");
      batch.gradients[{graph_.inputs[layer][positions[i]], {layer, positions[i]}}] = std::move(gradient);
    }
    for (std::size_t i = 0; i < island.leaves.size(); ++i)
      if (gradients[positions.size() + i].defined())
        island.leaves[i].parameter->accumulate(gradients[positions.size() + i]);
  }
  island.inputs.clear();
  island.outputs.clear();
  island.leaves.clear();
}

void Stage::run_backward(int micro_batch, bool with_weights) {
  weights_.at_work.group = replicas_.group_of(micro_batch);
  const StageMeter::Work timed(run_->meter, &StageReport::input_grad_us);
  MicroBatch& batch = alive_.at(micro_batch);
  if (batch.recompute) run_->meter.recomputed();
  loss_gradients(batch);
  for (int layer = last_ - 1; layer >= first_; --layer) {
    if (!graph_.has_backward[layer]) continue;
    input_grad_layer(layer, batch, micro_batch);
    if (!with_weights) continue;
    const StageMeter::Work weights(run_->meter, &StageReport::weight_grad_us);
    run_weight_grads(layer, batch.islands[layer - first_]);
  }
}

void Stage::run_weight_grads(int layer, Island& island) {
  enter_layer(layer);
  const StageMeter::Layer timed(run_->meter, layer - first_);
  try {
    island.weight_grads->run();
    MemoryPool::check_limit();
  } catch (Error& error) {
    error.add_place(layer_text(graph_.layers[layer]));
    throw;
  } catch (const std::exception& error) {
    throw LayerError(
        concat(layer_text(graph_.layers[layer]), " failed in the gradient of its weights: ", short_message(error)));
  }
}

void Stage::backward(int micro_batch) {
  run_backward(micro_batch, /*with_weights=*/true);
}
void Stage::input_grad(int micro_batch) {
  run_backward(micro_batch, /*with_weights=*/false);
}

std::int64_t Stage::first_row(int micro_batch) const {
  return std::accumulate(header_->slices.begin(), header_->slices.begin() + micro_batch, std::int64_t{0});
}

/// The states that micro-batches have set become those of the next step.
void Stage::keep_states(int layer) {
  for (const auto& [micro_batch, states] : collected_.take_states(layer - first_))
    for (const Buffer& buffer : weights_.buffers[layer - first_])
      if (const auto set = states.find(buffer.index); set != states.end())
        buffer.value.narrow(0, first_row(micro_batch), header_->slices[micro_batch]).copy_(set->second);
}

void Stage::end_step() {
  at::NoGradGuard no_grad;
  for (int layer = first_; layer < last_; ++layer) {
    keep_states(layer);
    const std::vector<Tensors> in_order = collected_.take_statistics(layer - first_);
    if (in_order.empty()) continue;
    try {
      graph_.layers[layer].layer->end_step(weights_.buffers[layer - first_], in_order);
    } catch (const std::exception& error) {
      throw LayerError(concat(layer_text(graph_.layers[layer]), " failed in end_step: ", short_message(error)));
    }
  }
}

void Stage::weight_grad(int micro_batch) {
  // A stage whose layers compute all in I has nothing left, and the micro-batch is gone already.
  const auto batch = alive_.find(micro_batch);
  if (batch == alive_.end()) return;
  weights_.at_work.group = replicas_.group_of(micro_batch);
  const StageMeter::Work timed(run_->meter, &StageReport::weight_grad_us);
  for (int layer = last_ - 1; layer >= first_; --layer)
    if (Island& island = batch->second.islands[layer - first_]; island.weight_grads) run_weight_grads(layer, island);
  alive_.erase(batch);
}

}  // namespace lockstep
