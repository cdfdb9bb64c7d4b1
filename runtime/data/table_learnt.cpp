// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/table_learnt.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/data/dataset.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

template <typename T>
void take(const Json& json, const char* key, T& value) {
  if (json.contains(key)) value = json.at(key).get<T>();
}

template <typename T>
void put(Json& json, const char* key, const T& value) {
  if (!value.empty()) json[key] = value;
}

}  // namespace

std::string to_json(const TableLearnt& learnt) {
  Json json = Json::object();
  put(json, "columns", learnt.columns);
  for (const ColumnScaling& each : learnt.scaling)
    json["scaling"].push_back({{"column", each.column}, {"mean", each.mean}, {"deviation", each.deviation}});
  put(json, "kinds", learnt.kinds);
  put(json, "categories", learnt.categories);
  put(json, "missing", learnt.missing);
  put(json, "indicators", learnt.indicators);
  put(json, "labels", learnt.labels);
  // JSON holds UTF-8 only; a column's name may hold other bytes.
  return json.empty() ? "" : json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

TableLearnt table_learnt(const std::string& text) {
  TableLearnt learnt;
  if (text.empty()) return learnt;
  try {
    const Json json = Json::parse(text);
    take(json, "columns", learnt.columns);
    if (json.contains("scaling"))
      for (const Json& each : json.at("scaling"))
        learnt.scaling.push_back(
            {each.at("column").get<std::string>(), each.at("mean").get<double>(), each.at("deviation").get<double>()});
    take(json, "kinds", learnt.kinds);
    take(json, "categories", learnt.categories);
    take(json, "missing", learnt.missing);
    take(json, "indicators", learnt.indicators);
    take(json, "labels", learnt.labels);
  } catch (const std::exception& error) {
    throw DataError(concat("what the checkpoint says of its training data is damaged: ", reason_of(error)));
  }
  return learnt;
}

ColumnScaling scaling_of(const std::string& column, const std::vector<double>& values, bool from_first) {
  const auto rows = static_cast<double>(values.size());
  const double origin = from_first ? values.front() : 0.0;
  double mean = 0, deviation = 0;
  for (const double value : values) mean += value - origin;
  mean = origin + mean / rows;
  for (const double value : values) deviation += (value - mean) * (value - mean);
  return {column, mean, std::sqrt(deviation / rows)};
}

}  // namespace lockstep
