// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/image_layers.hpp"

#include <ATen/ATen.h>

#include <functional>
#include <numeric>

#include "runtime/config/field.hpp"
#include "runtime/layer/onnx_graph.hpp"

namespace lockstep {
namespace {

std::int64_t product(const std::vector<std::int64_t>& sizes, std::size_t first = 0) {
  return std::accumulate(sizes.begin() + static_cast<std::ptrdiff_t>(first), sizes.end(), std::int64_t{1},
                         std::multiplies<>());
}

LayerDescription with_sizes(const EntrySpec& input, std::vector<std::int64_t> sizes) {
  LayerDescription description;
  description.outputs = {input};
  description.outputs[0].sizes = std::move(sizes);
  return description;
}

/// One number, or a list with one per dimension.
Field extent(Extent& member, int dims, std::int64_t least) {
  Field field;
  field.read = [&member, dims, each = between<std::int64_t>(least, kMostSize)](const Section& section,
                                                                               const std::string& key) {
    member = section.is_sequence(key) ? section.list(key, each) : Extent{section.get(key, each)};
    if (member.size() != 1 && member.size() != static_cast<std::size_t>(dims))
      throw section.unexpected(key, dims == 1 ? "one number" : concat("one number, or ", dims, ": one per dimension"));
  };
  field.write = [&member] { return member.size() == 1 ? scalar_value(text_of(member[0])) : list_value(member); };
  return field;
}

/// One number per spatial dimension.
Extent per_dimension(const Extent& extent, int dims) {
  return extent.size() == 1 ? Extent(static_cast<std::size_t>(dims), extent[0]) : extent;
}

void expect_output(const Layer& layer, const EntrySpec& input, std::int64_t size) {
  if (size < 1)
    throw ModelError(concat("a ", layer.type(), " layer would put out ", size, " positions for ", to_string(input),
                            "; the input is too small for its kernel: use a larger input, a smaller kernel, more "
                            "padding, or fewer layers that shrink it before"));
}

}  // namespace

void expect_channels(const Layer& layer, const EntrySpec& input, std::int64_t channels, std::size_t dims) {
  const bool fits = input.sizes.size() == dims + 2 && (channels == 0 || input.sizes[1] == channels);
  if (fits && at::isFloatingType(input.dtype)) return;
  static const char* const spatial[] = {"", ", length", ", height, width"};
  throw ModelError(concat("a ", layer.type(), " layer got ", to_string(input), "; it expects a floating-point entry ",
                          "[rows, ", channels ? std::to_string(channels) : "channels", spatial[dims], "]"));
}

void fields(FieldVisitor& visit, ConvolutionConfig& config) {
  ConvolutionOptions& options = config.options;
  visit("in", size_field(config.in).required());
  visit("out", size_field(config.out).required());
  visit("kernel", extent(config.kernel, config.dims, 1).required());
  visit("stride", extent(options.stride, config.dims, 1));
  visit("padding", extent(options.padding, config.dims, 0));
  if (config.transposed) visit("output_padding", extent(options.output_padding, config.dims, 0));
  visit("dilation", extent(options.dilation, config.dims, 1));
  visit("groups", size_field(options.groups));
  visit("bias", value(options.bias));
}

Convolution::Convolution(const ConvolutionConfig& config)
    : LayerOf(concat(config.transposed ? "conv_transpose" : "conv", config.dims, "d"), config),
      part_{"",
            config.in,
            config.out,
            per_dimension(config.kernel, config.dims),
            {},
            config.options.bias,
            config.options.weight_init} {
  const ConvolutionOptions& options = config.options;
  ConvolutionArguments& arguments = part_.arguments;
  arguments.stride = per_dimension(options.stride, config.dims);
  arguments.padding = per_dimension(options.padding, config.dims);
  arguments.dilation = per_dimension(options.dilation, config.dims);
  arguments.output_padding = per_dimension(options.output_padding, config.dims);
  arguments.transposed = config.transposed;
  arguments.groups = options.groups;
  if (config.in % options.groups != 0 || config.out % options.groups != 0)
    throw ModelError(concat("a ", type(), " layer has ", config.in, " input and ", config.out, " output channels in ",
                            options.groups, " groups; the groups must divide both"));
  for (std::size_t d = 0; d < part_.kernel.size(); ++d) {
    const std::int64_t padding = arguments.output_padding[d];
    if (padding > 0 && (!config.transposed || (padding >= arguments.stride[d] && padding >= arguments.dilation[d])))
      throw ModelError(concat("a ", type(), " layer has the output padding ", padding,
                              "; only a transposed one has it, smaller than its stride or dilation"));
  }
}

std::int64_t Convolution::output_size(std::size_t d, std::int64_t size) const {
  const ConvolutionArguments& a = part_.arguments;
  const std::int64_t reach = a.dilation[d] * (part_.kernel[d] - 1) + 1;
  if (a.transposed) return (size - 1) * a.stride[d] - 2 * a.padding[d] + reach + a.output_padding[d];
  const std::int64_t room = size + 2 * a.padding[d] - reach;
  return room < 0 ? 0 : room / a.stride[d] + 1;
}

LayerDescription Convolution::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_channels(*this, inputs[0], part_.in, static_cast<std::size_t>(config().dims));
  EntrySpec output = inputs[0];
  output.sizes = {inputs[0].sizes[0], part_.out};
  for (std::size_t d = 0; d < part_.kernel.size(); ++d) {
    output.sizes.push_back(output_size(d, inputs[0].sizes[d + 2]));
    expect_output(*this, inputs[0], output.sizes.back());
  }
  return described({output}, part_);
}

Tensors Convolution::forward(const Tensors& inputs, LayerContext& context) const {
  return {part_(context, inputs[0])};
}

std::vector<std::string> Convolution::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  return {part_.onnx(graph, inputs[0])};
}

void fields(FieldVisitor& visit, PoolConfig& config) {
  visit("kernel", size_field(config.kernel).required());
  visit("stride", value(config.stride, between<std::int64_t>(0, kMostSize)));
  visit("padding", value(config.padding, between<std::int64_t>(0, kMostSize)));
}

Pool2d::Pool2d(const PoolConfig& config) : LayerOf(config.kind == PoolKind::max ? "max_pool2d" : "avg_pool2d", config) {
  if (config.padding > config.kernel / 2)
    throw ModelError(concat("a ", type(), " layer has kernel ", config.kernel, " and padding ", config.padding,
                            "; it expects a padding of at most half the kernel"));
}

LayerDescription Pool2d::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_channels(*this, inputs[0], 0, 2);
  std::vector<std::int64_t> sizes = inputs[0].sizes;
  for (std::size_t d = 2; d < 4; ++d) {
    const std::int64_t room = sizes[d] + 2 * config().padding - config().kernel;
    sizes[d] = room < 0 ? 0 : room / stride() + 1;
    expect_output(*this, inputs[0], sizes[d]);
  }
  return with_sizes(inputs[0], std::move(sizes));
}

Tensors Pool2d::forward(const Tensors& inputs, LayerContext&) const {
  const std::int64_t kernel = config().kernel, padding = config().padding;
  if (config().kind == PoolKind::max) return {at::max_pool2d(inputs[0], kernel, stride(), padding)};
  return {at::avg_pool2d(inputs[0], kernel, stride(), padding)};
}

std::vector<std::string> Pool2d::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  const std::int64_t kernel = config().kernel, padding = config().padding;
  OnnxGraph::Attributes attributes = {{"kernel_shape", OnnxGraph::Sizes(2, kernel)},
                                      {"strides", OnnxGraph::Sizes(2, stride())},
                                      {"pads", OnnxGraph::Sizes(4, padding)}};
  if (config().kind == PoolKind::max) return {graph.add("MaxPool", inputs, attributes)};
  attributes.emplace_back("count_include_pad", std::int64_t{1});
  return {graph.add("AveragePool", inputs, attributes)};
}

LayerDescription GlobalAvgPool::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  if (inputs[0].sizes.size() < 3) expect_channels(*this, inputs[0], 0, 2);
  return with_sizes(inputs[0], {inputs[0].sizes[0], inputs[0].sizes[1]});
}

Tensors GlobalAvgPool::forward(const Tensors& inputs, LayerContext&) const {
  return {at::mean(inputs[0].flatten(2), {2})};
}

std::vector<std::string> GlobalAvgPool::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  const OnnxGraph::Attributes over = {{"axes", OnnxGraph::Sizes{2}}, {"keepdims", std::int64_t{0}}};
  return {graph.add("ReduceMean", {graph.reshape(inputs[0], {0, 0, -1})}, over)};
}

void fields(FieldVisitor& visit, UpsampleConfig& config) {
  visit("factor", size_field(config.factor).required());
}

LayerDescription Upsample::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_channels(*this, inputs[0], 0, 2);
  const std::vector<std::int64_t>& sizes = inputs[0].sizes;
  return with_sizes(inputs[0], {sizes[0], sizes[1], sizes[2] * config().factor, sizes[3] * config().factor});
}

Tensors Upsample::forward(const Tensors& inputs, LayerContext&) const {
  const at::Tensor& x = inputs[0];
  return {at::upsample_nearest2d(x, {x.size(2) * config().factor, x.size(3) * config().factor})};
}

std::vector<std::string> Upsample::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  const auto factor = static_cast<double>(config().factor);
  const at::Tensor scales = at::tensor({1.0, 1.0, factor, factor}, at::kFloat);
  return {
      graph.add("Resize", {inputs[0], "", graph.constant(scales)},
                {{"mode", "nearest"}, {"coordinate_transformation_mode", "asymmetric"}, {"nearest_mode", "floor"}})};
}

LayerDescription Flatten::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  if (inputs[0].sizes.empty()) throw ModelError("a flatten layer got a scalar; it expects [rows, ...]");
  return with_sizes(inputs[0], {inputs[0].sizes[0], product(inputs[0].sizes, 1)});
}

Tensors Flatten::forward(const Tensors& inputs, LayerContext&) const {
  return {inputs[0].reshape({inputs[0].size(0), product(inputs[0].sizes().vec(), 1)})};
}

std::vector<std::string> Flatten::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  return {graph.add("Flatten", inputs)};
}

LayerDescription Concat::describe(const std::vector<EntrySpec>& inputs) const {
  if (inputs.empty()) throw ModelError("a concat layer needs at least one input");
  std::vector<std::int64_t> sizes = inputs[0].sizes;
  if (sizes.size() < 2) throw ModelError(concat("a concat layer got ", to_string(inputs[0]), "; it expects channels"));
  sizes[1] = 0;
  for (const EntrySpec& input : inputs) {
    std::vector<std::int64_t> others = input.sizes;
    if (others.size() == sizes.size()) others[1] = sizes[1];
    if (others != sizes || input.dtype != inputs[0].dtype)
      throw ModelError(concat("a concat layer got ", to_string(inputs[0]), " and ", to_string(input),
                              "; all sizes but the channels (the second) must agree"));
    sizes[1] += input.sizes[1];
  }
  return with_sizes(inputs[0], std::move(sizes));
}

Tensors Concat::forward(const Tensors& inputs, LayerContext&) const {
  return {at::cat(inputs, 1)};
}

std::vector<std::string> Concat::onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const {
  return {graph.add("Concat", inputs, {{"axis", std::int64_t{1}}})};
}

}  // namespace lockstep
