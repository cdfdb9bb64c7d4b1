// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/cross_entropy.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>

#include "runtime/layer/compat.hpp"
#include "runtime/layer/loss.hpp"

namespace lockstep {
namespace {

using torch::autograd::variable_list;

/// What is alive of some rows at most: their log softmax, its gradient, and the logits' one.
constexpr std::int64_t kCopies = 3;

/// Calls with the first row and the number of rows.
template <typename Work>
void by_rows(std::int64_t rows, std::int64_t at_once, const Work& work) {
  for (std::int64_t begin = 0; begin < rows; begin += at_once) work(begin, std::min(at_once, rows - begin));
}

/// The log probability of each target, classes second: [rows, 1, ...]; of an ignored one that of any class.
at::Tensor picked(const at::Tensor& log_probabilities, const at::Tensor& targets) {
  return log_probabilities.gather(1, targets.masked_fill(targets.eq(kIgnoredTarget), 0).unsqueeze(1));
}

/// LibTorch's own sum, over a table with one class: the order of its additions depends on the number of rows alone.
at::Tensor negative_sum(const at::Tensor& picked, const at::Tensor& targets) {
  const at::Tensor only_class = targets.eq(kIgnoredTarget).to(at::kLong) * kIgnoredTarget;
  return at::nll_loss(picked.reshape({-1, 1}), only_class.reshape({-1}), /*weight=*/{}, at::Reduction::Sum,
                      kIgnoredTarget);
}

struct CrossEntropyBackward : torch::autograd::Node {
  at::Tensor logits, targets;
  std::int64_t at_once = 1;

  std::string name() const override { return "lockstep::CrossEntropyBackward"; }
  void release_variables() override {
    logits.reset();
    targets.reset();
  }

  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return variable_list(1);
    const at::NoGradGuard no_grad;
    const at::Tensor& seed = gradients[0];
    const at::Tensor unused = at::ones_like(seed);  // the sum of weights, which a sum is not divided by
    at::Tensor gradient = at::empty_like(logits);
    by_rows(logits.size(0), at_once, [&](std::int64_t begin, std::int64_t count) {
      const at::Tensor log_probabilities = at::log_softmax(for_loss(logits.narrow(0, begin, count)), 1);
      const at::Tensor of_them = at::nll_loss_backward(seed, log_probabilities, targets.narrow(0, begin, count),
                                                       /*weight=*/{}, at::Reduction::Sum, kIgnoredTarget, unused);
      gradient.narrow(0, begin, count)
          .copy_(at::_log_softmax_backward_data(of_them, log_probabilities, 1, seed.scalar_type()));
    });
    return {gradient};
  }
};

}  // namespace

at::Tensor cross_entropy_of_rows(const at::Tensor& logits, const at::Tensor& targets, std::int64_t bytes) {
  const at::ScalarType dtype = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto of_a_row = logits.size(1) * static_cast<std::int64_t>(c10::elementSize(dtype)) * kCopies;
  const std::int64_t rows = logits.size(0),
                     at_once = std::max<std::int64_t>(1, bytes / std::max<std::int64_t>(1, of_a_row));
  if (rows <= at_once)  // what is small is kept: to compute it again would take longer
    return at::cross_entropy_loss(for_loss(logits), targets, /*weight=*/{}, at::Reduction::Sum, kIgnoredTarget);

  at::Tensor sum;
  {
    const at::NoGradGuard no_grad;
    at::Tensor table = at::empty({rows, 1}, logits.options().dtype(dtype));
    by_rows(rows, at_once, [&](std::int64_t begin, std::int64_t count) {
      table.narrow(0, begin, count)
          .copy_(picked(at::log_softmax(for_loss(logits.narrow(0, begin, count)), 1), targets.narrow(0, begin, count)));
    });
    sum = negative_sum(table, targets);
  }
  if (!at::GradMode::is_enabled() || !logits.requires_grad()) return sum;
  auto node = make_node<CrossEntropyBackward>();
  node->logits = logits.detach();
  node->targets = targets;
  node->at_once = at_once;
  node->set_next_edges(torch::autograd::collect_next_edges(logits));
  torch::autograd::set_history(sum, node);
  return sum;
}

at::Tensor cross_entropy_of_pixels(const at::Tensor& output, const at::Tensor& targets) {
  return negative_sum(picked(at::log_softmax(for_loss(output), 1), targets), targets);
}

}  // namespace lockstep
