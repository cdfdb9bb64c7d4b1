// SPDX-License-Identifier: Apache-2.0
//
// LibTorch's process-wide CPU generator must never be seen by a layer.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <set>
#include <thread>

#include "runtime/layer/context.hpp"
#include "runtime/layer/philox.hpp"
#include "runtime/layer/random.hpp"
#include "runtime/layer/tensor_hash.hpp"
#include "tests/test.hpp"

using namespace lockstep;

namespace {

at::Tensor draw(std::uint64_t seed) {
  const RandomScope scope(seed);
  const at::Tensor x = at::ones({64});
  return at::cat({at::dropout(x, 0.5, true), at::rand({8}), at::randn({8}), at::randperm(16).to(at::kFloat),
                  at::empty({8}).exponential_(), at::randint(100, {8}).to(at::kFloat),
                  at::multinomial(x, 4).to(at::kFloat), at::bernoulli(x * 0.5)});
}

}  // namespace

TEST_CASE("threads that draw at the same time each get their own stream", "[contract]") {
  constexpr int kThreads = 4, kRounds = 400;
  std::vector<at::Tensor> expected;
  for (int i = 0; i < kRounds; ++i) expected.push_back(draw(mix_seed(1, i, 0, "layer")));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        const int which = (i * (t + 1)) % kRounds;
        if (!at::equal(draw(mix_seed(1, which, 0, "layer")), expected[which])) ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("a scope leaves LibTorch's own generator where it was", "[contract]") {
  at::manual_seed(11);
  const at::Tensor without = at::rand({4});
  at::manual_seed(11);
  draw(5);
  CHECK(at::equal(at::rand({4}), without));
}

TEST_CASE("an explicit generator is still obeyed inside a scope", "[contract]") {
  at::Generator generator = at::detail::createCPUGenerator(9);
  const at::Tensor expected = at::rand({4}, generator);
  generator.set_current_seed(9);
  const RandomScope scope(1);
  CHECK(at::equal(at::rand({4}, generator), expected));
}

TEST_CASE("Philox4x32-10 gives the words of Random123's known answers", "[contract]") {
  constexpr std::uint32_t ones = 0xffffffff;
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({ones, ones, ones, ones}, {ones, ones}) ==
        PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a mask of Philox keeps the elements whose word is below the probability, on any number of threads",
          "[contract]") {
  const std::uint64_t seed = mix_seed(1, 2, 3, "h.0");
  const PhiloxKey key{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  const at::Tensor mask = philox_mask({7, 3}, at::kCPU, 0.75, seed, 5);
  for (std::uint32_t i = 0; i < 21; ++i)
    CHECK(mask.view({-1})[i].item<bool>() == (philox({i / 4, 0, 5, 0}, key)[i % 4] < 0xC0000000));
  CHECK(philox_mask({9}, at::kCPU, 1, seed, 0).all().item<bool>());
  CHECK_FALSE(philox_mask({9}, at::kCPU, 0, seed, 0).any().item<bool>());
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor large = philox_mask({100'003}, at::kCPU, 0.9, seed, 0);
  at::set_num_threads(4);
  CHECK(at::equal(large, philox_mask({100'003}, at::kCPU, 0.9, seed, 0)));
  at::set_num_threads(threads);
  CHECK(std::abs(large.to(at::kDouble).mean().item<double>() - 0.9) < 0.005);
  CHECK(hash_of(large) == 0x2f4a5751920cef49);  // written down for ever, as mix_seed
}

TEST_CASE("dropout is LibTorch's on the CPU, and with Philox a function of scope, call and place", "[contract]") {
  const at::Tensor x = at::linspace(-1, 1, 1000), other = at::ones({50});
  const auto drawn = [&](DropoutKernel kernel, const auto& drop) {
    const RandomScope scope(17, kernel);
    return std::vector{drop(x, 0.25, true), drop(other, 0.5, true), drop(x, 0.25, true), drop(x, 0.25, false)};
  };
  const auto ours = [](const at::Tensor& t, double p, bool training) {
    std::vector<Parameter> none;
    WeightGradQueue queue;
    return dropout(LayerContext(none, queue, at::Tensor(), training, at::kFloat), t, p);
  };
  const auto theirs = [](const at::Tensor& t, double p, bool training) { return at::dropout(t, p, training); };
  const auto of_torch = drawn(DropoutKernel::torch, ours), of_libtorch = drawn(DropoutKernel::torch, theirs);
  const auto of_philox = drawn(DropoutKernel::philox, ours), again = drawn(DropoutKernel::philox, ours);
  for (std::size_t i = 0; i < of_torch.size(); ++i) {
    CHECK(at::equal(of_torch[i], of_libtorch[i]));
    CHECK(at::equal(of_philox[i], again[i]));
  }
  CHECK_FALSE(at::equal(of_philox[0], of_philox[2]));
  const at::Tensor kept = philox_mask({1000}, at::kCPU, 0.75, 17, 2);
  CHECK(at::equal(of_philox[2], x * kept * (1 / 0.75)));
  CHECK(at::equal(of_philox[3], x));
  at::manual_seed(4);
  const at::Tensor outside = ours(x, 0.25, true);
  at::manual_seed(4);
  CHECK(at::equal(outside, at::dropout(x, 0.25, true)));
}

TEST_CASE("streams differ by seed, step, micro-batch and layer", "[contract]") {
  std::set<std::uint64_t> seeds;
  for (std::uint64_t seed : {1, 2})
    for (std::uint64_t step : {0, 1, 2})
      for (std::uint64_t micro_batch : {0, 1, 2})
        for (const char* layer : {"h.0", "h.1"}) seeds.insert(mix_seed(seed, step, micro_batch, layer));
  CHECK(seeds.size() == 2 * 3 * 3 * 2);
  // Written down for ever: another value changes every run there has been.
  CHECK(mix_seed(1, 2, 3, "h.0") == 0x21f387d39d923ad7);
}
