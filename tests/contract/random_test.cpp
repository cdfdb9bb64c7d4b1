// SPDX-License-Identifier: Apache-2.0
//
// LibTorch's process-wide CPU generator must never be seen by a layer.
#include <ATen/ATen.h>

#include <set>
#include <thread>

#include "runtime/layer/random.hpp"
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
