// SPDX-License-Identifier: Apache-2.0
//
// Operators with a split backward: the input gradient is computed when autograd asks for it (I), the weight gradient is
// queued in the context (W). Weights are read from the Parameter, never through autograd, and their gradients are added
// to Parameter::gradient in the master's dtype. In bf16 the float32 master is cast once per step.
//
// The arithmetic is that of at::linear, at::embedding and at::convolution and of their autograd formulas (linear: on
// 2-D operands), so gradients are bit-identical to plain LibTorch (tests/parity/loop_test.cpp, layers_test.cpp).
//
// Products are counted (LayerContext::count_products): of a convolution those with padding, too; of an embedding, which
// has none, nothing.
#pragma once

#include "runtime/layer/context.hpp"

namespace lockstep {

/// y = x W^T + b over the last dimension. x: [..., in], contiguous, context.precision(). `bias`: local name, or empty.
at::Tensor linear(LayerContext& context, const at::Tensor& x, const std::string& weight, const std::string& bias,
                  WeightLayout layout = WeightLayout::out_in);

/// The same as nodes of an ONNX graph: y.
std::string onnx_linear(OnnxGraph& graph, const std::string& x, const std::string& weight, const std::string& bias,
                        WeightLayout layout = WeightLayout::out_in);

/// Rows of `weight` [count, width] at `indices` (int64, any shape): [..., width] in context.precision(). Where the
/// index is `padding`, the row gets no gradient; -1: none is. Behind the first micro-batch of a step the gradient is
/// that of the rows that were used, not of the whole table.
at::Tensor embedding(LayerContext& context, const at::Tensor& indices, const std::string& weight,
                     std::int64_t padding = -1);

/// What at::convolution takes, one number per spatial dimension.
struct ConvolutionArguments {
  std::vector<std::int64_t> stride, padding, dilation, output_padding;
  bool transposed = false;
  std::int64_t groups = 1;
};

/// Convolution of x [rows, in, ...] with one or two spatial dimensions, contiguous, context.precision(). `weight`:
/// [out, in / groups, ...]; transposed: [in, out / groups, ...]. `bias`: local name, or empty. I and W are
/// at::convolution_backward with an output mask each: the same bits as the whole backward, at the same cost. A layer
/// that computes in bf16 sums its bias gradient in float32.
at::Tensor convolution(LayerContext& context, const at::Tensor& x, const std::string& weight, const std::string& bias,
                       const ConvolutionArguments& arguments);

}  // namespace lockstep
