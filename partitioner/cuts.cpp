// SPDX-License-Identifier: Apache-2.0
#include "partitioner/cuts.hpp"

#include <algorithm>
#include <limits>

#include "runtime/base/error.hpp"

namespace lockstep {

std::vector<int> balanced_cut(const std::vector<double>& weights, int stages) {
  const int layers = static_cast<int>(weights.size());
  if (stages < 1 || stages > layers)
    throw UserError(concat("cannot cut ", layers, " layers into ", stages,
                           " stages: every stage needs at least one layer; use at most ", layers, " stages"));
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

}  // namespace lockstep
