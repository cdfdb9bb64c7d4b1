// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/image_layers.hpp"

#include <ATen/ATen.h>

#include <functional>
#include <numeric>

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

std::vector<std::int64_t> per_dimension(const Extent& extent, int dims, std::int64_t least, const char* what) {
  std::vector<std::int64_t> numbers = extent;
  if (numbers.size() == 1) numbers.assign(static_cast<std::size_t>(dims), extent[0]);
  bool fits = static_cast<int>(numbers.size()) == dims;
  for (const std::int64_t number : numbers) fits = fits && number >= least;
  if (!fits)
    throw ModelError(concat("a convolution with ", dims, " spatial dimensions has the ", what, " [", join(extent),
                            "]; it expects one number, or ", dims, ", each >= ", least));
  return numbers;
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

Convolution::Convolution(int dims, bool transposed, std::int64_t in, std::int64_t out, const Extent& kernel,
                         const ConvolutionOptions& options)
    : dims_(dims), part_{"", in, out, per_dimension(kernel, dims, 1, "kernel"), {}, options.bias} {
  ConvolutionArguments& arguments = part_.arguments;
  arguments.stride = per_dimension(options.stride, dims, 1, "stride");
  arguments.padding = per_dimension(options.padding, dims, 0, "padding");
  arguments.dilation = per_dimension(options.dilation, dims, 1, "dilation");
  arguments.output_padding = per_dimension(options.output_padding, dims, 0, "output padding");
  arguments.transposed = transposed;
  arguments.groups = options.groups;
  if (in < 1 || out < 1 || options.groups < 1 || in % options.groups != 0 || out % options.groups != 0)
    throw ModelError(concat("a ", type(), " layer has ", in, " input and ", out, " output channels in ", options.groups,
                            " groups; the groups must divide both"));
  for (std::size_t d = 0; d < part_.kernel.size(); ++d) {
    const std::int64_t padding = arguments.output_padding[d];
    if (padding > 0 && (!transposed || (padding >= arguments.stride[d] && padding >= arguments.dilation[d])))
      throw ModelError(concat("a ", type(), " layer has the output padding ", padding,
                              "; only a transposed one has it, smaller than its stride or dilation"));
  }
}

std::string Convolution::type() const {
  return concat(part_.arguments.transposed ? "conv_transpose" : "conv", dims_, "d");
}

std::string Convolution::options() const {
  const ConvolutionArguments& a = part_.arguments;
  return concat("stride ", join(a.stride, " "), ", padding ", join(a.padding, " "), ", dilation ",
                join(a.dilation, " "), ", output padding ", join(a.output_padding, " "), ", groups ", a.groups);
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
  expect_channels(*this, inputs[0], part_.in, static_cast<std::size_t>(dims_));
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

Pool2d::Pool2d(Kind kind, std::int64_t kernel, std::int64_t stride, std::int64_t padding)
    : kind_(kind), kernel_(kernel), stride_(stride == 0 ? kernel : stride), padding_(padding) {
  if (kernel_ < 1 || stride_ < 1 || padding_ < 0 || padding_ > kernel_ / 2)
    throw ModelError(concat("a pooling layer has kernel ", kernel_, ", stride ", stride_, " and padding ", padding_,
                            "; it expects kernel and stride >= 1 and a padding from 0 to half the kernel"));
}

LayerDescription Pool2d::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_channels(*this, inputs[0], 0, 2);
  std::vector<std::int64_t> sizes = inputs[0].sizes;
  for (std::size_t d = 2; d < 4; ++d) {
    const std::int64_t room = sizes[d] + 2 * padding_ - kernel_;
    sizes[d] = room < 0 ? 0 : room / stride_ + 1;
    expect_output(*this, inputs[0], sizes[d]);
  }
  return with_sizes(inputs[0], std::move(sizes));
}

Tensors Pool2d::forward(const Tensors& inputs, LayerContext&) const {
  if (kind_ == Kind::max) return {at::max_pool2d(inputs[0], kernel_, stride_, padding_)};
  return {at::avg_pool2d(inputs[0], kernel_, stride_, padding_)};
}

LayerDescription GlobalAvgPool::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  if (inputs[0].sizes.size() < 3) expect_channels(*this, inputs[0], 0, 2);
  return with_sizes(inputs[0], {inputs[0].sizes[0], inputs[0].sizes[1]});
}

Tensors GlobalAvgPool::forward(const Tensors& inputs, LayerContext&) const {
  return {at::mean(inputs[0].flatten(2), {2})};
}

Upsample::Upsample(std::int64_t factor) : factor_(factor) {
  if (factor < 1) throw ModelError(concat("an upsample layer has the factor ", factor, "; it expects >= 1"));
}

LayerDescription Upsample::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  expect_channels(*this, inputs[0], 0, 2);
  const std::vector<std::int64_t>& sizes = inputs[0].sizes;
  return with_sizes(inputs[0], {sizes[0], sizes[1], sizes[2] * factor_, sizes[3] * factor_});
}

Tensors Upsample::forward(const Tensors& inputs, LayerContext&) const {
  const at::Tensor& x = inputs[0];
  return {at::upsample_nearest2d(x, {x.size(2) * factor_, x.size(3) * factor_})};
}

LayerDescription Flatten::describe(const std::vector<EntrySpec>& inputs) const {
  expect_inputs(*this, inputs, 1);
  if (inputs[0].sizes.empty()) throw ModelError("a flatten layer got a scalar; it expects [rows, ...]");
  return with_sizes(inputs[0], {inputs[0].sizes[0], product(inputs[0].sizes, 1)});
}

Tensors Flatten::forward(const Tensors& inputs, LayerContext&) const {
  return {inputs[0].reshape({inputs[0].size(0), product(inputs[0].sizes().vec(), 1)})};
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

}  // namespace lockstep
