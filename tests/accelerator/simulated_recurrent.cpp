// SPDX-License-Identifier: Apache-2.0
//
// The cells of LSTM and GRU that LibTorch asks of devices and the CPU has not, of the device's other operators; as
// ATen/native/cuda/RNN.cu has them.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "tests/accelerator/simulated_order.hpp"

namespace lockstep::test::simulated {
namespace {

using at::Tensor;
using MaybeTensor = std::optional<Tensor>;

Tensor with_bias(const Tensor& gates, const MaybeTensor& bias) {
  return bias && bias->defined() ? gates + *bias : gates;
}

Tensor sum_of(const Tensor& gates, bool has_bias) {
  return has_bias ? gates.sum(0) : Tensor();
}

/// The gradient before a sigmoid, whose value is `y`.
Tensor before_sigmoid(const Tensor& gradient, const Tensor& y) {
  return gradient * (1 - y) * y;
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& input_gates, const Tensor& hidden_gates, const Tensor& cx,
                                             const MaybeTensor& input_bias, const MaybeTensor& hidden_bias) {
  const auto gates = (with_bias(input_gates, input_bias) + with_bias(hidden_gates, hidden_bias)).chunk(4, 1);
  const Tensor i = gates[0].sigmoid(), f = gates[1].sigmoid(), g = gates[2].tanh(), o = gates[3].sigmoid();
  const Tensor cy = f * cx + i * g;
  return {o * cy.tanh(), cy, at::cat({i, f, g, o}, 1)};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell_backward(const MaybeTensor& grad_hy, const MaybeTensor& grad_cy,
                                                      const Tensor& cx, const Tensor& cy, const Tensor& workspace,
                                                      bool has_bias) {
  const auto gates = workspace.chunk(4, 1);
  const Tensor &i = gates[0], &f = gates[1], &g = gates[2], &o = gates[3], wide = cy.tanh();
  const Tensor of_hy = grad_hy && grad_hy->defined() ? *grad_hy : at::zeros_like(cy);
  Tensor of_cy = of_hy * o * (1 - wide * wide);
  if (grad_cy && grad_cy->defined()) of_cy = of_cy + *grad_cy;
  const Tensor all = at::cat({before_sigmoid(of_cy * g, i), before_sigmoid(of_cy * cx, f), of_cy * i * (1 - g * g),
                              before_sigmoid(of_hy * wide, o)},
                             1);
  return {all, of_cy * f, sum_of(all, has_bias)};
}

std::tuple<Tensor, Tensor> gru_cell(const Tensor& input_gates, const Tensor& hidden_gates, const Tensor& hx,
                                    const MaybeTensor& input_bias, const MaybeTensor& hidden_bias) {
  const auto in = with_bias(input_gates, input_bias).chunk(3, 1),
             hidden = with_bias(hidden_gates, hidden_bias).chunk(3, 1);
  const Tensor r = (in[0] + hidden[0]).sigmoid(), z = (in[1] + hidden[1]).sigmoid();
  const Tensor n = (in[2] + r * hidden[2]).tanh();
  return {n + z * (hx - n), at::cat({r, z, n, hx, hidden[2]}, 1)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gru_cell_backward(const Tensor& gradient, const Tensor& workspace,
                                                                     bool has_bias) {
  const auto kept = workspace.chunk(5, 1);
  const Tensor &r = kept[0], &z = kept[1], &n = kept[2], &hx = kept[3], &hidden = kept[4];
  const Tensor of_z = before_sigmoid(gradient * (hx - n), z), of_n = gradient * (1 - z) * (1 - n * n);
  const Tensor of_r = before_sigmoid(of_n * hidden, r);
  const Tensor of_in = at::cat({of_r, of_z, of_n}, 1), of_hidden = at::cat({of_r, of_z, of_n * r}, 1);
  return {of_in, of_hidden, gradient * z, sum_of(of_in, has_bias), sum_of(of_hidden, has_bias)};
}

}  // namespace

void register_recurrent_kernels() {
  static torch::Library aten(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  aten.impl("_thnn_fused_lstm_cell", &lstm_cell);
  aten.impl("_thnn_fused_lstm_cell_backward_impl", &lstm_cell_backward);
  aten.impl("_thnn_fused_gru_cell", &gru_cell);
  aten.impl("_thnn_fused_gru_cell_backward", &gru_cell_backward);
}

}  // namespace lockstep::test::simulated
