// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>
#include <string>

namespace lockstep {

/// As NumPy and PyTorch call it: "float32", "int64"; null for what has no such name.
const char* dtype_name(at::ScalarType dtype);
std::optional<at::ScalarType> find_dtype(const std::string& name);

}  // namespace lockstep
