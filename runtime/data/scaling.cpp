// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/scaling.hpp"

#include <cmath>

namespace lockstep {

std::vector<ColumnScaling> scaling_of(const std::vector<double>& x, const std::vector<std::string>& columns,
                                      bool from_first) {
  const std::size_t features = columns.size();
  const auto rows = static_cast<double>(x.size() / features);
  const auto origin = [&](std::size_t feature) { return from_first ? x[feature] : 0.0; };
  std::vector<double> mean(features), deviation(features);
  for (std::size_t i = 0; i < x.size(); ++i) mean[i % features] += x[i] - origin(i % features);
  for (std::size_t feature = 0; feature < features; ++feature) mean[feature] = origin(feature) + mean[feature] / rows;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double off = x[i] - mean[i % features];
    deviation[i % features] += off * off;
  }
  std::vector<ColumnScaling> scaling;
  for (std::size_t feature = 0; feature < features; ++feature)
    scaling.push_back({columns[feature], mean[feature], std::sqrt(deviation[feature] / rows)});
  return scaling;
}

std::vector<float> scaled(const std::vector<double>& x, const std::vector<ColumnScaling>& scaling) {
  std::vector<float> result;
  result.reserve(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const ColumnScaling& column = scaling[i % scaling.size()];
    result.push_back(static_cast<float>((x[i] - column.mean) / (column.deviation > 0 ? column.deviation : 1)));
  }
  return result;
}

void check_scaling(const std::vector<ColumnScaling>& scaling, int features, const std::string& path) {
  if (scaling.size() != static_cast<std::size_t>(features))
    throw DataError(concat(path, ": got ", features, " features, expected ", scaling.size(),
                           ", of which the checkpoint has the scaling"));
}

}  // namespace lockstep
