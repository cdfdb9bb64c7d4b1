// SPDX-License-Identifier: Apache-2.0
//
// Layers that sleep. A layer takes forward_ms in F, input_grad_ms in I and weight_grad_ms in W, and passes a small
// tensor on: y = x * weight. Sleeping workers share a core, so the efficiency of a schedule can be measured with more
// workers than cores; and the gradients are real, so the same runs can be verified bit by bit.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <time.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <cmath>

#include "models/registry.hpp"
#include "runtime/config/field.hpp"
#include "runtime/layer/compat.hpp"
#include "runtime/layer/layers.hpp"

#ifdef __linux__
#include <sys/prctl.h>
#endif

namespace lockstep {
namespace {

struct DelayTimes {
  double forward_ms = 0, input_grad_ms = 0, weight_grad_ms = 0;
};

void fields(FieldVisitor& visit, DelayTimes& times) {
  visit("forward_ms", value(times.forward_ms, at_least(0.0)));
  visit("input_grad_ms", value(times.input_grad_ms, at_least(0.0)));
  visit("weight_grad_ms", value(times.weight_grad_ms, at_least(0.0)));
}

void sleep_ms(double ms) {
  if (ms <= 0) return;
#ifdef __linux__
  // The kernel may round a sleep up by the thread's timer slack, 50 us unless told otherwise.
  thread_local const int slack = prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  static_cast<void>(slack);
#endif
  timespec until{};
  clock_gettime(CLOCK_MONOTONIC, &until);
  const auto nanoseconds = until.tv_nsec + static_cast<long long>(ms * 1e6);
  until.tv_sec += nanoseconds / 1'000'000'000;
  until.tv_nsec = nanoseconds % 1'000'000'000;
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
  }
}

struct DelayBackward : torch::autograd::Node {
  at::Tensor input;
  Parameter* weight = nullptr;
  DelayTimes times{};
  WeightGradQueue* queue = nullptr;

  std::string name() const override { return "lockstep::DelayBackward"; }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    at::NoGradGuard no_grad;
    const at::Tensor& dy = gradients[0];
    sleep_ms(times.input_grad_ms);
    at::Tensor input_gradient;
    if (task_should_compute_output(0)) input_gradient = dy * weight->cast(dy.scalar_type());
    queue->push([x = input, dy, w = weight, ms = times.weight_grad_ms] {
      at::NoGradGuard inner;
      sleep_ms(ms);
      w->accumulate((x * dy).sum(0));
    });
    return {input_gradient, at::Tensor()};
  }
};

class Delay : public LayerOf<DelayTimes> {
 public:
  Delay(std::int64_t width, const DelayTimes& times) : LayerOf("delay", times), width_(width) {}

  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    expect_inputs(*this, inputs, 1);
    expect_width(*this, inputs[0], width_);
    if (inputs[0].sizes.size() != 2)
      throw ModelError(concat("a delay layer got ", to_string(inputs[0]), "; it expects [rows, width]"));
    LayerDescription description;
    description.outputs = {inputs[0]};
    description.parameters = {{"weight", {width_}, Init::ones(), ""}};
    return description;
  }

  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor& x = inputs[0];
    Parameter& weight = context.parameter("weight");
    sleep_ms(config().forward_ms);
    at::Tensor y;
    {
      at::NoGradGuard no_grad;
      y = x * weight.cast(x.scalar_type());
    }
    if (context.training() && at::GradMode::is_enabled()) {
      auto node = make_node<DelayBackward>();
      node->input = x.detach();
      node->weight = &weight;
      node->times = config();
      node->queue = &context.weight_grads();
      node->set_next_edges(torch::autograd::collect_next_edges(x, context.anchor()));
      torch::autograd::set_history(y, node);
    }
    return {y};
  }

 private:
  std::int64_t width_;
};

// One number for all layers, or a list with one per layer.
std::vector<double> times_of(const Section& section, const std::string& key, double default_ms, int layers) {
  if (!section.is_sequence(key))
    return std::vector<double>(static_cast<std::size_t>(layers), section.get<double>(key, default_ms, at_least(0.0)));
  const auto times = section.get<std::vector<double>>(key);
  if (static_cast<int>(times.size()) != layers)
    throw section.error(key, concat("got ", times.size(), " times, expected one, or one per layer (", layers, ")"));
  return times;
}

}  // namespace

Model make_delay(const Section& section) {
  const int layers = section.get<int>("layers", between(1, kMostLayers));
  const auto width = section.get<std::int64_t>("width", 4, between<std::int64_t>(1, kMostSize));
  const std::vector<double> forward = times_of(section, "forward_ms", 20.0, layers);
  const std::vector<double> input_grad = times_of(section, "input_grad_ms", 20.0, layers);
  const std::vector<double> weight_grad = times_of(section, "weight_grad_ms", 20.0, layers);
  Model model{"delay", {}};
  for (int i = 0; i < layers; ++i)
    model.layers.push_back(
        {concat("delay.", i), std::make_shared<Delay>(width, DelayTimes{forward[i], input_grad[i], weight_grad[i]})});
  return model;
}

}  // namespace lockstep
