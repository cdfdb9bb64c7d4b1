// SPDX-License-Identifier: Apache-2.0
#include "partitioner/cuts.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>

#include "runtime/base/error.hpp"
#include "tests/test.hpp"

using namespace lockstep;

namespace {

double heaviest_stage(const std::vector<double>& weights, const std::vector<int>& counts) {
  double heaviest = 0;
  auto at = weights.begin();
  for (const int count : counts) {
    heaviest = std::max(heaviest, std::accumulate(at, at + count, 0.0));
    at += count;
  }
  return heaviest;
}

// Every cut there is.
double best_by_brute_force(const std::vector<double>& weights, int stages) {
  double best = 1e300;
  std::vector<int> counts;
  const std::function<void(int)> extend = [&](int left) {
    if (static_cast<int>(counts.size()) == stages - 1) {
      counts.push_back(left);
      if (left >= 1) best = std::min(best, heaviest_stage(weights, counts));
      counts.pop_back();
      return;
    }
    for (int count = 1; count < left; ++count) {
      counts.push_back(count);
      extend(left - count);
      counts.pop_back();
    }
  };
  extend(static_cast<int>(weights.size()));
  return best;
}

}  // namespace

TEST_CASE("a balanced cut is as good as the best of all cuts", "[unit]") {
  std::mt19937 random(5);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<double> weights(1 + random() % 9);
    for (double& weight : weights) weight = static_cast<double>(random() % 20);
    const int stages = 1 + static_cast<int>(random() % weights.size());
    const std::vector<int> counts = balanced_cut(weights, stages);
    REQUIRE(static_cast<int>(counts.size()) == stages);
    CHECK(std::accumulate(counts.begin(), counts.end(), 0) == static_cast<int>(weights.size()));
    CHECK(*std::min_element(counts.begin(), counts.end()) >= 1);
    CHECK(heaviest_stage(weights, counts) == best_by_brute_force(weights, stages));
  }
}

TEST_CASE("equal layers are cut evenly", "[unit]") {
  CHECK(balanced_cut({1, 1, 1, 1, 1, 1, 1, 1}, 4) == std::vector<int>{2, 2, 2, 2});
  CHECK(balanced_cut({1, 1, 1, 1, 1, 1, 1, 1}, 3) == std::vector<int>{3, 3, 2});
}

TEST_CASE("more stages than layers are refused with what would be legal", "[unit]") {
  CHECK_THROWS_WITH(balanced_cut({1, 1}, 3), Catch::Contains("use at most 2 stages"));
}

TEST_CASE("a block cut leaves no stage more than one layer heavier than another", "[unit][plan]") {
  std::mt19937 random(6);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<double> weights(1 + random() % 30);
    for (double& weight : weights) weight = static_cast<double>(random() % 1000) / 1000;
    weights.front() = 0, weights.back() = 1;  // so that no weight is shifted
    const int stages = 1 + static_cast<int>(random() % weights.size());
    const std::vector<int> counts = block_cut(weights, stages);
    REQUIRE(static_cast<int>(counts.size()) == stages);
    CHECK(std::accumulate(counts.begin(), counts.end(), 0) == static_cast<int>(weights.size()));
    CHECK(*std::min_element(counts.begin(), counts.end()) >= 1);
    double lightest = 1e300;
    auto at = weights.begin();
    for (const int count : counts) {
      lightest = std::min(lightest, std::accumulate(at, at + count, 0.0));
      at += count;
    }
    CHECK(heaviest_stage(weights, counts) <= lightest + 1 + 1e-9);
  }
}

TEST_CASE("a block cut is torchgpipe's", "[unit][plan]") {
  // The cases of its tests/test_balance.py.
  CHECK(block_cut({1, 2, 3, 4, 5, 6}, 2) == std::vector<int>{4, 2});
  CHECK(block_cut({0, 0}, 2) == std::vector<int>{1, 1});
  // What it settles for: a heaviest stage may be heavier than it need be.
  CHECK(block_cut({0, 0, 0, 0, 0, 100}, 3) == std::vector<int>{2, 2, 2});
  CHECK(block_cut({1, 1, 1, 1}, 4) == std::vector<int>{1, 1, 1, 1});
  CHECK_THROWS_WITH(block_cut({1}, 2), Catch::Contains("use at most 1 stages"));
}
