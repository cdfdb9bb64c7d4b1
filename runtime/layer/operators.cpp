// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/operators.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>

#include "runtime/layer/compat.hpp"
#include "runtime/layer/onnx_graph.hpp"

namespace lockstep {
namespace {

using torch::autograd::variable_list;

at::Tensor rows_of(const at::Tensor& x) {
  return x.dim() == 2 ? x : x.reshape({-1, x.size(-1)});
}

// The first micro-batch's product goes straight into the gradient buffer; the others are computed, then added.
void accumulate_product(Parameter& parameter, const at::Tensor& left, const at::Tensor& right) {
  if (!parameter.gradient.defined() && left.scalar_type() == parameter.value.scalar_type()) {
    at::Tensor gradient = at::empty(parameter.value.sizes(), parameter.value.options().requires_grad(false));
    at::mm_out(gradient, left, right);
    parameter.begin_gradient(std::move(gradient));
    return;
  }
  parameter.accumulate(at::mm(left, right));
}

struct LinearBackward : torch::autograd::Node {
  at::Tensor input;  // [rows, in]
  std::vector<std::int64_t> input_sizes;
  Parameter* weight = nullptr;
  Parameter* bias = nullptr;  // null without bias
  WeightLayout layout = WeightLayout::out_in;
  WeightGradQueue* queue = nullptr;

  std::string name() const override { return "lockstep::LinearBackward"; }
  void release_variables() override { input.reset(); }

  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return variable_list(2);
    at::NoGradGuard no_grad;
    const at::Tensor output_gradient = rows_of(gradients[0]);
    at::Tensor input_gradient;
    if (task_should_compute_output(0)) {
      const at::Tensor& cast = weight->cast(output_gradient.scalar_type());
      input_gradient = at::mm(output_gradient, layout == WeightLayout::out_in ? cast : cast.t()).reshape(input_sizes);
    }
    if (weight->trainable || (bias && bias->trainable)) queue_weight_gradient(output_gradient);
    return {input_gradient, at::Tensor()};
  }

  void queue_weight_gradient(const at::Tensor& output_gradient) {
    queue->push([x = std::move(input), dy = output_gradient, w = weight, b = bias, stored = layout] {
      at::NoGradGuard no_grad;
      if (w->trainable) {
        if (stored == WeightLayout::out_in)
          accumulate_product(*w, dy.t(), x);
        else
          accumulate_product(*w, x.t(), dy);
      }
      // Rows are summed in the master's type also in bf16: a bf16 sum over many rows keeps no digits.
      if (b && b->trainable) b->accumulate(at::sum(dy, {0}, /*keepdim=*/false, b->value.scalar_type()));
    });
  }
};

// Behind the first micro-batch only the rows that are used are summed, each in the order of its positions, and added:
// the sums of a whole table, whose other rows would add 0. On the CPU, where the number of rows costs no wait.
void accumulate_rows(Parameter& parameter, const at::Tensor& rows_gradient, const at::Tensor& indices,
                     std::int64_t padding) {
  const std::int64_t count = parameter.value.size(0);
  const at::Tensor gradient = rows_gradient.to(parameter.value.scalar_type());
  const auto sums = [&](const at::Tensor& places, std::int64_t rows, std::int64_t none) {
    return at::embedding_dense_backward(gradient, places, rows, none, /*scale_grad_by_freq=*/false);
  };
  const bool sparse = parameter.is_sparse;
  if (!sparse && (!gradient.is_cpu() || !parameter.has_gradient_of_group() || indices.numel() >= count))
    return parameter.accumulate(sums(indices, count, padding));
  const auto [used, places, counts] = at::_unique2(indices, /*sorted=*/true, /*return_inverse=*/true);
  if (sparse) {
    const at::Tensor of_rows = sums(places, used.numel(), -1);
    if (padding < 0) return parameter.accumulate_rows(used, of_rows);
    const at::Tensor others = at::nonzero(used != padding).squeeze(1);  // it learns nothing
    return parameter.accumulate_rows(used.index_select(0, others), of_rows.index_select(0, others));
  }
  const std::int64_t* first = used.const_data_ptr<std::int64_t>();
  const std::int64_t* last = first + used.numel();
  const std::int64_t* none = std::lower_bound(first, last, padding);
  parameter.gradient.index_add_(0, used,
                                sums(places, used.numel(), none != last && *none == padding ? none - first : -1));
}

// Of a sparse table, of which few rows may be here. Casting all of it would cost more than these.
at::Tensor used_rows(Parameter& parameter, const at::Tensor& indices) {
  if (parameter.asked_rows) {
    parameter.asked_rows->push_back(indices);
    std::vector<std::int64_t> sizes = indices.sizes().vec();
    sizes.push_back(parameter.value.size(1));
    return at::zeros({}, parameter.value.options().device(indices.device())).expand(sizes);
  }
  const bool has_all = !parameter.held_rows.defined();
  return at::embedding(parameter.value, has_all ? indices : at::searchsorted(parameter.held_rows, indices));
}

struct EmbeddingBackward : torch::autograd::Node {
  at::Tensor indices;
  std::int64_t padding = -1;
  Parameter* weight = nullptr;
  WeightGradQueue* queue = nullptr;

  std::string name() const override { return "lockstep::EmbeddingBackward"; }
  void release_variables() override { indices.reset(); }

  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return variable_list(1);
    queue->push([ids = std::move(indices), dy = gradients[0].contiguous(), w = weight, none = padding] {
      at::NoGradGuard no_grad;
      accumulate_rows(*w, dy, ids, none);
    });
    return variable_list(1);
  }
};

// One of the three gradients of a convolution, by the mask {input, weight, bias}.
std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_gradients(const at::Tensor& dy, const at::Tensor& x,
                                                                     const at::Tensor& weight, std::int64_t bias_size,
                                                                     const ConvolutionArguments& a,
                                                                     std::array<bool, 3> mask) {
  const at::OptionalIntArrayRef bias_sizes = bias_size ? at::OptionalIntArrayRef(bias_size) : std::nullopt;
  return at::convolution_backward(dy, x, weight, bias_sizes, a.stride, a.padding, a.dilation, a.transposed,
                                  a.output_padding, a.groups, mask);
}

struct ConvolutionBackward : torch::autograd::Node {
  at::Tensor input;
  Parameter* weight = nullptr;
  Parameter* bias = nullptr;  // null without bias
  ConvolutionArguments arguments;
  WeightGradQueue* queue = nullptr;

  std::string name() const override { return "lockstep::ConvolutionBackward"; }
  void release_variables() override { input.reset(); }

  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return variable_list(2);
    at::NoGradGuard no_grad;
    const at::Tensor& dy = gradients[0];
    at::Tensor input_gradient;
    if (task_should_compute_output(0))
      input_gradient = std::get<0>(convolution_gradients(
          dy, input, weight->cast(dy.scalar_type()), bias ? bias->value.size(0) : 0, arguments, {true, false, false}));
    if (weight->trainable || (bias && bias->trainable)) queue_weight_gradient(dy);
    return {input_gradient, at::Tensor()};
  }

  void queue_weight_gradient(const at::Tensor& output_gradient) {
    queue->push([x = std::move(input), dy = output_gradient, w = weight, b = bias, a = arguments] {
      at::NoGradGuard no_grad;
      const bool wants_bias = b && b->trainable, full = dy.scalar_type() == w->value.scalar_type();
      const auto [unused, dw, db] = convolution_gradients(dy, x, w->cast(dy.scalar_type()), b ? b->value.size(0) : 0, a,
                                                          {false, w->trainable, wants_bias && full});
      if (w->trainable) w->accumulate(dw);
      if (!wants_bias) return;
      // Summed in the master's type also in bf16: a bf16 sum over many positions keeps no digits.
      std::vector<std::int64_t> all_but_channels{0};
      for (std::int64_t dim = 2; dim < dy.dim(); ++dim) all_but_channels.push_back(dim);
      b->accumulate(full ? db : at::sum(dy, all_but_channels, /*keepdim=*/false, b->value.scalar_type()));
    });
  }
};

// Only layers in training with something to learn, or something before them that learns, are part of a graph.
bool needs_graph(const at::Tensor& x, const Parameter& weight, const Parameter* bias, bool training) {
  return training && at::GradMode::is_enabled() && (x.requires_grad() || weight.trainable || (bias && bias->trainable));
}

// Of the two products in the backward.
int gradients_of(const at::Tensor& x, const Parameter& weight, bool in_graph) {
  return in_graph ? static_cast<int>(x.requires_grad()) + static_cast<int>(weight.trainable) : 0;
}

}  // namespace

at::Tensor linear(LayerContext& context, const at::Tensor& x, const std::string& weight_name,
                  const std::string& bias_name, WeightLayout layout) {
  Parameter& weight = context.parameter(weight_name);
  Parameter* bias = bias_name.empty() ? nullptr : &context.parameter(bias_name);
  std::vector<std::int64_t> output_sizes(x.sizes().begin(), x.sizes().end());
  output_sizes.back() = weight.value.size(layout == WeightLayout::out_in ? 0 : 1);

  at::Tensor rows, output;
  {
    at::NoGradGuard no_grad;
    rows = rows_of(x.detach());
    const at::Tensor& cast = weight.cast(x.scalar_type());
    const at::Tensor bias_cast = bias ? bias->cast(x.scalar_type()) : at::Tensor();
    if (layout == WeightLayout::out_in)
      output = bias ? at::linear(rows, cast, bias_cast) : at::linear(rows, cast);
    else
      output = bias ? at::addmm(bias_cast, rows, cast) : at::mm(rows, cast);
    output = output.reshape(output_sizes);
  }
  const bool in_graph = needs_graph(x, weight, bias, context.training());
  context.count_products(static_cast<double>(rows.size(0)) * static_cast<double>(weight.value.numel()),
                         gradients_of(x, weight, in_graph));
  if (!in_graph) return output;

  auto node = make_node<LinearBackward>();
  if (weight.trainable) node->input = std::move(rows);
  node->input_sizes = x.sizes().vec();
  node->weight = &weight;
  node->bias = bias;
  node->layout = layout;
  node->queue = &context.weight_grads();
  node->set_next_edges(torch::autograd::collect_next_edges(x, context.anchor()));
  torch::autograd::set_history(output, node);
  return output;
}

std::string onnx_linear(OnnxGraph& graph, const std::string& x, const std::string& weight, const std::string& bias,
                        WeightLayout layout) {
  std::string w = graph.parameter(weight);
  if (layout == WeightLayout::out_in) w = graph.permute(w, {1, 0});
  const std::string y = graph.add("MatMul", {x, w});
  return bias.empty() ? y : graph.add("Add", {y, graph.parameter(bias)});
}

at::Tensor embedding(LayerContext& context, const at::Tensor& indices, const std::string& weight_name,
                     std::int64_t padding) {
  Parameter& weight = context.parameter(weight_name);
  at::Tensor output;
  {
    at::NoGradGuard no_grad;
    output = weight.is_sparse ? used_rows(weight, indices).to(context.precision())
                              : at::embedding(weight.cast(context.precision()), indices);
  }
  if (!needs_graph(indices, weight, nullptr, context.training())) return output;

  auto node = make_node<EmbeddingBackward>();
  node->indices = indices;
  node->padding = padding;
  node->weight = &weight;
  node->queue = &context.weight_grads();
  node->set_next_edges(torch::autograd::collect_next_edges(context.anchor()));
  torch::autograd::set_history(output, node);
  return output;
}

at::Tensor convolution(LayerContext& context, const at::Tensor& x, const std::string& weight_name,
                       const std::string& bias_name, const ConvolutionArguments& arguments) {
  Parameter& weight = context.parameter(weight_name);
  Parameter* bias = bias_name.empty() ? nullptr : &context.parameter(bias_name);
  at::Tensor output;
  {
    at::NoGradGuard no_grad;
    const std::optional<at::Tensor> bias_cast =
        bias ? std::optional<at::Tensor>(bias->cast(x.scalar_type())) : std::nullopt;
    output = at::convolution(x.detach(), weight.cast(x.scalar_type()), bias_cast, arguments.stride, arguments.padding,
                             arguments.dilation, arguments.transposed, arguments.output_padding, arguments.groups);
  }
  const bool in_graph = needs_graph(x, weight, bias, context.training());
  // Each element of the side that the kernel is laid on meets all of the kernel that belongs to its channel.
  const std::int64_t elements = arguments.transposed ? x.numel() : output.numel();
  context.count_products(
      static_cast<double>(elements) * static_cast<double>(weight.value.numel() / weight.value.size(0)),
      gradients_of(x, weight, in_graph));
  if (!in_graph) return output;

  auto node = make_node<ConvolutionBackward>();
  node->input = x.detach();
  node->weight = &weight;
  node->bias = bias;
  node->arguments = arguments;
  node->queue = &context.weight_grads();
  node->set_next_edges(torch::autograd::collect_next_edges(x, context.anchor()));
  torch::autograd::set_history(output, node);
  return output;
}

}  // namespace lockstep
