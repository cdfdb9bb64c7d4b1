// SPDX-License-Identifier: Apache-2.0
#include "partitioner/cuts.hpp"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "runtime/base/error.hpp"
#include "runtime/base/nearest.hpp"

namespace lockstep {
namespace {

void check_stages(const std::vector<double>& weights, int stages) {
  const auto layers = static_cast<int>(weights.size());
  if (stages < 1 || stages > layers)
    throw UserError(concat("cannot cut ", layers, " layers into ", stages,
                           " stages: every stage needs at least one layer; use at most ", layers, " stages"));
}

}  // namespace

std::vector<int> balanced_cut(const std::vector<double>& weights, int stages) {
  check_stages(weights, stages);
  const int layers = static_cast<int>(weights.size());
  std::vector<double> sum(layers + 1, 0.0);
  for (int i = 0; i < layers; ++i) sum[i + 1] = sum[i] + weights[i];

  // least[i]: the least possible heaviest stage when layers i.. are cut into k stages; next[k][i]: where its first
  // ends.
  std::vector<double> least(layers + 1, std::numeric_limits<double>::infinity());
  least[layers] = 0;
  std::vector<std::vector<int>> next(stages + 1, std::vector<int>(layers + 1, -1));
  for (int k = 1; k <= stages; ++k) {
    std::vector<double> less(std::move(least));  // of k - 1 stages
    least.assign(layers + 1, std::numeric_limits<double>::infinity());
    for (int i = layers - k; i >= 0; --i) {
      // As the first stage grows, it gets heavier and the rest lighter: the best end is where they cross, or one
      // before. Of equally good ends the last.
      const auto first_of = [&](int end) { return sum[end] - sum[i]; };
      const int last = layers - k + 1;
      int low = i + 1, high = last;
      while (low < high) {
        const int middle = low + (high - low) / 2;
        if (first_of(middle) >= less[middle])
          high = middle;
        else
          low = middle + 1;
      }
      int end = low;
      if (end > i + 1 && std::max(first_of(end), less[end]) > less[end - 1])
        --end;
      else
        while (end < last && first_of(end + 1) <= std::max(first_of(end), less[end]))
          ++end;  // layers that weigh nothing
      least[i] = std::max(first_of(end), less[end]);
      next[k][i] = end;
    }
  }
  std::vector<int> counts;
  for (int k = stages, i = 0; k > 0; --k) {
    counts.push_back(next[k][i] - i);
    i = next[k][i];
  }
  return counts;
}

std::vector<int> block_cut(const std::vector<double>& weights, int stages) {
  check_stages(weights, stages);
  const auto layers = static_cast<int>(weights.size());
  const auto [lightest, heaviest] = std::minmax_element(weights.begin(), weights.end());
  const double least = *lightest, range = *heaviest - *lightest;
  std::vector<int> end;  // of each stage
  for (int stage = 1; stage < stages; ++stage) end.push_back(layers / stages * stage);
  end.push_back(layers);
  const auto size = [&](int stage) {
    double sum = 0;
    for (int layer = stage > 0 ? end[stage - 1] : 0; layer < end[stage]; ++layer)
      sum += range > 0 ? (weights[layer] - least) / range : 0.0;
    return sum;
  };
  // The largest stage stays the same until it gives a layer away itself; until then layers move towards the smallest
  // stage from its neighbour on the side of the largest.
  for (int largest = -1;;) {
    std::vector<double> sizes;
    for (int stage = 0; stage < stages; ++stage) sizes.push_back(size(stage));
    if (largest < 0)
      for (int stage = 0; stage < stages; ++stage)  // of equal ones the last
        if (largest < 0 || sizes[stage] >= sizes[largest]) largest = stage;
    int smallest = 0;  // of equal ones the closest to the largest
    for (int stage = 1; stage < stages; ++stage)
      if (sizes[stage] < sizes[smallest] ||
          (sizes[stage] == sizes[smallest] && std::abs(stage - largest) < std::abs(smallest - largest)))
        smallest = stage;
    if (sizes[largest] <= sizes[smallest] + 1) break;
    const int giver = largest < smallest ? smallest - 1 : smallest + 1;
    if (largest < smallest)
      --end[giver];
    else
      ++end[smallest];
    if (giver == largest) largest = -1;
  }
  std::vector<int> counts = end;
  std::adjacent_difference(end.begin(), end.end(), counts.begin());
  return counts;
}

std::vector<int> cut_before(const std::vector<std::string>& layers, const std::vector<std::string>& first) {
  std::vector<int> counts;
  int start = 0;
  for (const std::string& name : first) {
    const auto found = std::find(layers.begin(), layers.end(), name);
    if (found == layers.end())
      throw UserError(
          concat("the model has no layer '", name, "'; it has: ", join(layers), did_you_mean(name, layers)));
    const int layer = static_cast<int>(found - layers.begin());
    if (layer <= start)
      throw UserError(concat("layer '", name, "' is layer ", layer, ", but the stage before it starts at ", start,
                             "; name the first layer of every stage but the first, in order"));
    counts.push_back(layer - start);
    start = layer;
  }
  counts.push_back(static_cast<int>(layers.size()) - start);
  return counts;
}

}  // namespace lockstep
