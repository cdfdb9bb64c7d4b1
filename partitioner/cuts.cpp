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

  // heaviest[k][i]: the least possible heaviest stage when layers i.. are cut into k stages; next[k][i]: where its
  // first ends.
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> heaviest(stages + 1, std::vector<double>(layers + 1, infinity));
  std::vector<std::vector<int>> next(stages + 1, std::vector<int>(layers + 1, -1));
  heaviest[0][layers] = 0;
  for (int k = 1; k <= stages; ++k)
    for (int i = layers - k; i >= 0; --i)
      for (int end = i + 1; end <= layers - k + 1; ++end) {
        const double candidate = std::max(sum[end] - sum[i], heaviest[k - 1][end]);
        if (candidate <= heaviest[k][i]) {
          heaviest[k][i] = candidate;
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
