// SPDX-License-Identifier: Apache-2.0
//
// Cross-entropy some rows at a time, and without NLLLoss2d: the bits of LibTorch's, and the memory that it takes.
#include "runtime/training/cross_entropy.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "runtime/engine/memory.hpp"
#include "runtime/layer/loss.hpp"
#include "runtime/layer/random.hpp"
#include "tests/test.hpp"

using namespace lockstep;

namespace {

using CrossEntropy = std::function<at::Tensor(const at::Tensor& output, const at::Tensor& targets)>;

at::Tensor libtorch(const at::Tensor& output, const at::Tensor& targets) {
  return at::cross_entropy_loss(for_loss(output), targets, {}, at::Reduction::Sum, kIgnoredTarget);
}

/// The sum and its gradient.
std::pair<at::Tensor, at::Tensor> both(const CrossEntropy& sum_of, const at::Tensor& output,
                                       const at::Tensor& targets) {
  const at::Tensor leaf = output.detach().requires_grad_(true);
  const at::Tensor sum = sum_of(leaf, targets);
  const at::Tensor seed = at::full({}, 1.0 / 37, sum.options().requires_grad(false));
  return {sum.detach(), torch::autograd::grad({sum}, {leaf}, {seed})[0]};
}

/// Targets for an output of these sizes, classes second, a part of them ignored.
at::Tensor targets_for(std::vector<std::int64_t> sizes, double ignored) {
  const std::int64_t classes = sizes[1];
  sizes.erase(sizes.begin() + 1);
  at::Tensor targets = at::randint(classes, sizes, at::kLong);
  return targets.masked_fill_(at::rand(sizes) < ignored, kIgnoredTarget);
}

void expect_bits_of_libtorch(const CrossEntropy& sum_of, const std::vector<std::int64_t>& sizes) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble})
    for (const double ignored : {0.0, 0.4, 1.0}) {
      CAPTURE(sizes, c10::toString(dtype), ignored);
      const RandomScope scope(mix_seed(3, 0, 0, "output"));
      const at::Tensor output = (at::randn(sizes) * 3).to(dtype);
      const at::Tensor targets = targets_for(sizes, ignored);
      const auto [sum, gradient] = both(sum_of, output, targets);
      const auto [expected_sum, expected_gradient] = both(libtorch, output, targets);
      CHECK(sum.scalar_type() == expected_sum.scalar_type());
      CHECK(at::equal(sum, expected_sum));
      CHECK(gradient.scalar_type() == dtype);
      CHECK(at::equal(gradient, expected_gradient));
      const at::NoGradGuard evaluating;
      CHECK(at::equal(sum_of(output, targets), expected_sum));
    }
}

constexpr std::int64_t kCopies = 3, kFloatBytes = 4;

}  // namespace

TEST_CASE("cross-entropy of some rows at a time has the bits of all at once", "[parity]") {
  struct Sizes {
    std::int64_t rows, classes, at_once;
  };
  const std::vector<Sizes> all = {{1, 11, 1},   {23, 11, 5},     {24, 11, 6},   {23, 11, 100},
                                  {7, 8192, 3}, {33, 50304, 10}, {1000, 17, 64}};
  for (const auto& [rows, classes, at_once] : all) {
    CAPTURE(at_once);
    const std::int64_t bytes = at_once * classes * kCopies * kFloatBytes;
    expect_bits_of_libtorch([&](const at::Tensor& output,
                                const at::Tensor& targets) { return cross_entropy_of_rows(output, targets, bytes); },
                            {rows, classes});
  }
}

TEST_CASE("cross-entropy of pixels has the bits of NLLLoss2d", "[parity]") {
  const std::vector<std::vector<std::int64_t>> all = {{1, 2, 1, 1},    {3, 4, 5, 6},    {2, 7, 30},
                                                      {2, 3, 4, 5, 6}, {2, 21, 64, 64}, {1, 5, 129, 257}};
  for (const std::vector<std::int64_t>& sizes : all) expect_bits_of_libtorch(cross_entropy_of_pixels, sizes);
}

TEST_CASE("a target outside of the classes is refused, however many rows are taken at a time", "[parity]") {
  for (const std::int64_t bytes : {std::int64_t{1}, cross_entropy_bytes(at::kCPU)})
    for (const std::int64_t target : {-1, 3})
      CHECK_THROWS(cross_entropy_of_rows(at::zeros({2, 3}), at::full({2}, target, at::kLong), bytes));
}

TEST_CASE("a large vocabulary takes a gradient of the output's type, and the bytes that are allowed", "[parity]") {
  constexpr std::int64_t rows = 512, classes = 8192, allowed = 4 << 20;
  const std::int64_t small = 64 * rows;  // what there is one of per row
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    CAPTURE(c10::toString(dtype));
    const auto peak_of = [&](const CrossEntropy& sum_of) {
      const at::Tensor output = at::zeros({rows, classes}, dtype), targets = at::zeros({rows}, at::kLong);
      MemoryPool pool;
      const MemoryPool::Scope scope(pool);
      const at::Tensor gradient = both(sum_of, output, targets).second;
      return pool.peak_bytes() - static_cast<std::int64_t>(gradient.nbytes());
    };
    const std::int64_t peak = peak_of([&](const at::Tensor& output, const at::Tensor& targets) {
      return cross_entropy_of_rows(output, targets, allowed);
    });
    CHECK(peak <= allowed + small);
    CHECK(peak > allowed / 2);
    CHECK(peak_of(libtorch) >= 2 * rows * classes * kFloatBytes);  // would be seen
  }
}
