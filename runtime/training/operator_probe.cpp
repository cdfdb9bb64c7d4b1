// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/operator_probe.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "runtime/checkpoint/manifest.hpp"
#include "runtime/layer/tensor_hash.hpp"
#include "runtime/training/precision.hpp"

namespace lockstep {
namespace {

using Results = std::vector<std::pair<std::string, std::string>>;

/// In (-1, 1), with all bits of the mantissa; by hand, for at::rand would draw from LibTorch's generator.
at::Tensor values(at::IntArrayRef sizes, std::uint32_t seed) {
  at::Tensor tensor = at::empty(sizes, at::kFloat);
  auto* data = tensor.mutable_data_ptr<float>();
  std::uint32_t state = seed;
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    state = state * 1664525U + 1013904223U;  // Numerical Recipes
    data[i] = static_cast<float>(static_cast<std::int32_t>(state) >> 7) * 0x1p-24F;
  }
  return tensor;
}

/// Deep products, for kernels differ in where they split the sum. The second half of it takes the first one back, so
/// that only what was rounded is left: bfloat16 would hide it else.
at::Tensor products(at::ScalarType type) {
  const auto product = [type](std::int64_t rows, std::int64_t half, std::int64_t columns) {
    const at::Tensor a = values({rows, half}, 1).to(type), b = values({half, columns}, 2).to(type);
    return at::matmul(at::cat({a, -a}, 1), at::cat({b, b}, 0)).flatten();
  };
  return at::cat({product(1, 450, 40), product(12, 350, 33), product(64, 550, 48)});
}

at::Tensor convolution() {
  const at::Tensor x = values({2, 8, 18, 18}, 3), weight = values({16, 8, 3, 3}, 4);
  const at::Tensor y = at::conv2d(x, weight, {}, 1, 1);
  const auto [dx, dw, db] = at::convolution_backward(values(y.sizes(), 5), x, weight, at::OptionalIntArrayRef{}, {1, 1},
                                                     {1, 1}, {1, 1}, false, {0, 0}, 1, {true, true, false});
  return at::cat({y.flatten(), dx.flatten(), dw.flatten()});
}

at::Tensor embedding_gradient() {
  const at::Tensor rows = at::remainder(at::arange(300, at::kLong) * 7, 11);
  return at::embedding_dense_backward(values({300, 24}, 6), rows, 11, -1, false);
}

at::Tensor attention() {
  const std::vector<std::int64_t> sizes = {1, 2, 70, 16};
  return at::scaled_dot_product_attention(values(sizes, 7), values(sizes, 8), values(sizes, 9), {}, 0.0, true);
}

/// The numbers between 0 and the smallest normal one: gone where denormals are flushed.
at::Tensor denormals() {
  return values({64}, 10) * 1e-30F * 1e-9F;
}

}  // namespace

Results operator_probe(Precision precision) {
  const at::NoGradGuard no_grad;
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  Results results;
  const auto put = [&](const std::string& name, const at::Tensor& result) {
    results.emplace_back(name, hex(hash_of(result)).substr(8));
  };
  const at::Tensor x = values({9, 1111}, 11), wide = x * 8;
  put("matmul", products(at::kFloat));
  if (precision != Precision::fp32) put(concat("matmul_", to_string(precision)), products(dtype_of(precision)));
  put("conv2d", convolution());
  put("layer_norm", at::layer_norm(x, {1111}));
  put("gelu", at::gelu(wide));
  put("exp", at::exp(wide));
  put("tanh", at::tanh(wide));
  put("log_softmax", at::log_softmax(wide, 1));
  put("sum", at::cat({at::sum(x, 1), at::sum(x, 0)}));
  put("attention", attention());
  put("embedding", embedding_gradient());
  put("denormals", denormals());
  at::set_num_threads(threads);
  return results;
}

}  // namespace lockstep
