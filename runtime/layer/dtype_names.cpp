// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/dtype_names.hpp"

#include <utility>

namespace lockstep {
namespace {

constexpr std::pair<at::ScalarType, const char*> kNames[] = {
    {at::kFloat, "float32"}, {at::kDouble, "float64"}, {at::kHalf, "float16"}, {at::kBFloat16, "bfloat16"},
    {at::kBool, "bool"},     {at::kByte, "uint8"},     {at::kChar, "int8"},    {at::kShort, "int16"},
    {at::kInt, "int32"},     {at::kLong, "int64"}};

}  // namespace

const char* dtype_name(at::ScalarType dtype) {
  for (const auto& [known, name] : kNames)
    if (known == dtype) return name;
  return nullptr;
}

std::optional<at::ScalarType> find_dtype(const std::string& name) {
  for (const auto& [dtype, known] : kNames)
    if (name == known) return dtype;
  return std::nullopt;
}

}  // namespace lockstep
