// SPDX-License-Identifier: Apache-2.0
//
// Dropout on devices: masks that belong to a layer and a micro-batch, and with Philox those of the CPU.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "runtime/layer/parts.hpp"
#include "runtime/layer/philox.hpp"
#include "runtime/layer/random.hpp"
#include "tests/accelerator/fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

struct Training {
  std::vector<Parameter> parameters;
  WeightGradQueue queue;
  LayerContext context{parameters, queue, at::Tensor(), /*training=*/true, at::kFloat};
};

}  // namespace

TEST_CASE("a device composes the masks of Philox that the CPU computes in a loop", "[contract]") {
  const Simulated simulated;
  for (const std::uint64_t seed : {0x0ULL, 0xffffffffffffffffULL, 0x123456789abcdef0ULL})
    for (const std::uint32_t call : {0U, 3U, 0xffffffffU})
      for (const std::int64_t count : {1, 3, 4, 1001}) {
        CAPTURE(seed, call, count);
        for (const double probability : {0.0, 0.1, 0.9, 1.0})
          CHECK(at::equal(philox_mask({count}, sim(), probability, seed, call).cpu(),
                          philox_mask({count}, at::kCPU, probability, seed, call)));
      }
  const std::int64_t several_pieces = (4 << 20) * 2 + 5;
  CHECK(at::equal(philox_mask({several_pieces}, sim(), 0.5, 7, 1).cpu(),
                  philox_mask({several_pieces}, at::kCPU, 0.5, 7, 1)));
}

TEST_CASE("dropout of a device draws from the scope, in the order of calls, and not from the process's generator",
          "[contract]") {
  const Simulated simulated;
  const Training training;
  const at::Tensor x = at::linspace(-1, 1, 300).to(sim(1)), other = at::ones({70}).to(sim(0));
  const auto drawn = [&](std::uint64_t seed, DropoutKernel kernel) {
    const RandomScope scope(seed, kernel);
    const LayerContext& context = training.context;
    return at::cat(
        {dropout(context, x, 0.25).cpu(), dropout(context, other, 0.5).cpu(), dropout(context, x, 0.25).cpu()});
  };
  for (const DropoutKernel kernel : {DropoutKernel::torch, DropoutKernel::philox}) {
    CAPTURE(to_string(kernel));
    const at::Tensor first = drawn(5, kernel), second = drawn(6, kernel);
    CHECK_FALSE(at::equal(first, second));
    CHECK_FALSE(at::equal(first.narrow(0, 0, 300), first.narrow(0, 370, 300)));
    at::rand({3});
    CHECK(at::equal(drawn(5, kernel), first));
    const double kept = first.ne(0).to(at::kDouble).narrow(0, 0, 300).mean().item<double>();
    CHECK(kept > 0.65);
    CHECK(kept < 0.85);
    CHECK(at::allclose(first.narrow(0, 0, 1), x.cpu().narrow(0, 0, 1) / 0.75) != (first[0].item<float>() == 0));
  }
  const RandomScope scope(9, DropoutKernel::philox);
  const at::Tensor there = dropout(training.context, x, 0.25).cpu();
  CHECK(at::equal(there, x.cpu() * philox_mask({300}, at::kCPU, 0.75, 9, 0) * (1 / 0.75)));
}

TEST_CASE("attention whose dropout LibTorch cannot draw is computed in steps, to the numbers of the fused one",
          "[contract]") {
  const Simulated simulated;
  Training training;
  const at::Tensor input = at::linspace(-2, 3, 2 * 6 * 8).reshape({2, 6, 8});
  const auto run = [&](const AttentionPart& part, at::Device device, DropoutKernel kernel) {
    const RandomScope scope(3, kernel);
    const at::Tensor leaf = input.to(device).requires_grad_(true);
    const at::Tensor output = part(training.context, leaf, leaf * 0.5, leaf + 1);
    const at::Tensor gradient = torch::autograd::grad({output}, {leaf}, {at::ones_like(output)})[0];
    return at::stack({output.detach().cpu(), gradient.cpu()});
  };
  for (const bool causal : {false, true}) {
    // So little that nothing is dropped.
    const AttentionPart part{2, 1e-9, causal}, without{2, 0.0, causal}, half{2, 0.5, causal};
    const at::Tensor expected = run(without, at::kCPU, DropoutKernel::torch);
    for (const auto& [device, kernel] : {std::pair(at::Device(at::kCPU), DropoutKernel::philox),
                                         {sim(), DropoutKernel::philox},
                                         {sim(), DropoutKernel::torch}}) {
      CAPTURE(causal, device.str(), to_string(kernel));
      CHECK(at::allclose(run(part, device, kernel), expected, 1e-4, 1e-4));
      CHECK_FALSE(at::allclose(run(half, device, kernel), expected, 1e-4, 1e-4));
      CHECK(at::equal(run(half, device, kernel), run(half, device, kernel)));
    }
    CHECK(
        at::allclose(run(half, sim(), DropoutKernel::philox), run(half, at::kCPU, DropoutKernel::philox), 1e-5, 1e-5));
  }
}
