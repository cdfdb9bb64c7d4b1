// SPDX-License-Identifier: Apache-2.0
//
// What Arrow reports, as our errors. Private to this folder.
#pragma once

#include <arrow/result.h>
#include <arrow/status.h>

#include <utility>

#include "runtime/data/dataset.hpp"

namespace lockstep {

/// Throws DataError that names the file and what Arrow says.
inline void arrow_done(const std::string& path, const arrow::Status& status) {
  if (!status.ok()) throw DataError(concat(path, ": cannot be read as a table: ", status.message()));
}

template <typename T>
T arrow_value(const std::string& path, arrow::Result<T> result) {
  arrow_done(path, result.status());
  return std::move(result).ValueUnsafe();
}

}  // namespace lockstep
