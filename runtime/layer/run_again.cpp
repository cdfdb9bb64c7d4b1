// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/run_again.hpp"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "runtime/layer/compat.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

using torch::autograd::variable_list;

// Both times in grad mode, so that both go the same way through LibTorch's operators.
Tensors leaves_of(const Tensors& inputs, const std::vector<bool>& learning) {
  Tensors leaves;
  for (std::size_t i = 0; i < inputs.size(); ++i) leaves.push_back(inputs[i].detach().requires_grad_(learning[i]));
  return leaves;
}

struct RunAgainBackward : torch::autograd::Node {
  Tensors inputs;
  std::vector<bool> learning;  // by input: requires a gradient
  std::function<at::Tensor(const Tensors&)> of;
  RandomPlace place;

  std::string name() const override { return "lockstep::RunAgainBackward"; }
  void release_variables() override { inputs.clear(); }

  variable_list apply(variable_list&& gradients) override {
    variable_list of_inputs(learning.size());
    if (!gradients[0].defined()) return of_inputs;
    const at::AutoGradMode grad_mode(true);
    const Tensors leaves = leaves_of(inputs, learning);
    const at::Tensor output = [&] {
      const RandomScope scope(place);
      return of(leaves);
    }();
    Tensors wanted;
    std::copy_if(leaves.begin(), leaves.end(), std::back_inserter(wanted),
                 [](const at::Tensor& leaf) { return leaf.requires_grad(); });
    Tensors found = torch::autograd::grad({output}, wanted, {gradients[0]});
    for (std::size_t i = 0, next = 0; i < learning.size(); ++i)
      if (learning[i]) of_inputs[i] = std::move(found[next++]);
    return of_inputs;
  }
};

}  // namespace

at::Tensor run_again_in_backward(const Tensors& inputs, std::function<at::Tensor(const Tensors&)> of) {
  std::vector<bool> learning;
  for (const at::Tensor& input : inputs) learning.push_back(input.requires_grad());
  RandomPlace place = random_place();
  const at::Tensor output = of(leaves_of(inputs, learning)).detach();
  auto node = make_node<RunAgainBackward>();
  for (const at::Tensor& input : inputs) node->inputs.push_back(input.detach());
  node->learning = std::move(learning);
  node->of = std::move(of);
  node->place = std::move(place);
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  torch::autograd::set_history(output, node);
  return output;
}

}  // namespace lockstep
