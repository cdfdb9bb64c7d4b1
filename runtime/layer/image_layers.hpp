// SPDX-License-Identifier: Apache-2.0
//
// Layers for images [rows, channels, height, width] and, where it says so, for signals [rows, channels, length]: the
// default memory format, channels second.
#pragma once

#include "runtime/layer/layers.hpp"

namespace lockstep {

/// One number for every spatial dimension, or one per dimension.
using Extent = std::vector<std::int64_t>;

struct ConvolutionOptions {
  Extent stride = {1};
  Extent padding = {0};  ///< zeros on both sides
  Extent dilation = {1};
  std::int64_t groups = 1;
  bool bias = true;
  Extent output_padding = {0};           ///< transposed only
  std::optional<Init> weight_init = {};  ///< absent: torch.nn's; no key
};

struct ConvolutionConfig {
  int dims = 2;             ///< spatial dimensions: of the type, no key
  bool transposed = false;  ///< the same
  std::int64_t in = 0, out = 0;
  Extent kernel = {};
  ConvolutionOptions options = {};
};
void fields(FieldVisitor& visit, ConvolutionConfig& config);

/// All convolutions; use the four below. Parameters weight [out, in / groups, kernel...] (transposed: [in, out /
/// groups, kernel...]) and bias [out], initial values as torch.nn's: uniform in +-1/sqrt(fan in), fan in = size(1) of
/// the weight times the kernel. I and W are split. Throws ModelError for numbers that make no convolution.
class Convolution : public LayerOf<ConvolutionConfig> {
 public:
  explicit Convolution(const ConvolutionConfig& config);
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  std::int64_t output_size(std::size_t dim, std::int64_t input_size) const;

  ConvolutionPart part_;
};

/// [rows, in, length] -> [rows, out, floor((length + 2 padding - dilation (kernel - 1) - 1) / stride) + 1]
class Conv1d : public Convolution {
 public:
  Conv1d(std::int64_t in, std::int64_t out, const Extent& kernel, const ConvolutionOptions& options = {})
      : Convolution({1, false, in, out, kernel, options}) {}
};

/// [rows, in, height, width] -> [rows, out, ...], each size as in Conv1d.
class Conv2d : public Convolution {
 public:
  Conv2d(std::int64_t in, std::int64_t out, const Extent& kernel, const ConvolutionOptions& options = {})
      : Convolution({2, false, in, out, kernel, options}) {}
};

/// [rows, in, length] -> [rows, out, (length - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1]
class ConvTranspose1d : public Convolution {
 public:
  ConvTranspose1d(std::int64_t in, std::int64_t out, const Extent& kernel, const ConvolutionOptions& options = {})
      : Convolution({1, true, in, out, kernel, options}) {}
};

class ConvTranspose2d : public Convolution {
 public:
  ConvTranspose2d(std::int64_t in, std::int64_t out, const Extent& kernel, const ConvolutionOptions& options = {})
      : Convolution({2, true, in, out, kernel, options}) {}
};

enum class PoolKind { max, average };

struct PoolConfig {
  PoolKind kind = PoolKind::max;  ///< of the type, no key
  std::int64_t kernel = 0;
  std::int64_t stride = 0;  ///< 0: the kernel
  std::int64_t padding = 0;
};
void fields(FieldVisitor& visit, PoolConfig& config);

/// The largest, or the mean, of each window: [rows, channels, h, w] -> floor((h + 2 padding - kernel) / stride) + 1.
/// The mean counts the zeros of the padding, as torch.nn.AvgPool2d.
class Pool2d : public LayerOf<PoolConfig> {
 public:
  explicit Pool2d(const PoolConfig& config);
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;

 private:
  std::int64_t stride() const { return config().stride == 0 ? config().kernel : config().stride; }
};

class MaxPool2d : public Pool2d {
 public:
  explicit MaxPool2d(std::int64_t kernel, std::int64_t stride = 0, std::int64_t padding = 0)
      : Pool2d({PoolKind::max, kernel, stride, padding}) {}
};

class AvgPool2d : public Pool2d {
 public:
  explicit AvgPool2d(std::int64_t kernel, std::int64_t stride = 0, std::int64_t padding = 0)
      : Pool2d({PoolKind::average, kernel, stride, padding}) {}
};

/// Mean over all positions: [rows, channels, ...] -> [rows, channels].
class GlobalAvgPool : public Layer {
 public:
  std::string type() const override { return "global_avg_pool"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;
};

struct UpsampleConfig {
  std::int64_t factor = 0;
};
void fields(FieldVisitor& visit, UpsampleConfig& config);

/// Repeats every pixel `factor` times in both directions (nearest): [rows, channels, factor h, factor w].
class Upsample : public LayerOf<UpsampleConfig> {
 public:
  explicit Upsample(const UpsampleConfig& config) : LayerOf("upsample", config) {}
  explicit Upsample(std::int64_t factor) : Upsample(UpsampleConfig{factor}) {}
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;
};

/// [rows, ...] -> [rows, product of the others].
class Flatten : public Layer {
 public:
  std::string type() const override { return "flatten"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;
};

/// The inputs side by side along the channels, in order; their other sizes agree. The end of a U-Net's skip.
class Concat : public Layer {
 public:
  std::string type() const override { return "concat"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override;
  Tensors forward(const Tensors& inputs, LayerContext& context) const override;
  std::vector<std::string> onnx(OnnxGraph& graph, const std::vector<std::string>& inputs) const override;
};

/// For describe(): a floating entry [rows, channels, ...] with `dims` spatial dimensions; channels 0: any.
void expect_channels(const Layer& layer, const EntrySpec& input, std::int64_t channels, std::size_t dims);

}  // namespace lockstep
