// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "runtime/config/config.hpp"
#include "runtime/graph/model_graph.hpp"

namespace lockstep {

/// What layers compute in.
inline at::ScalarType dtype_of(Precision precision) {
  switch (precision) {
    case Precision::fp32: return at::kFloat;
    case Precision::bf16: return at::kBFloat16;
    case Precision::fp64: return at::kDouble;
  }
  return at::kFloat;
}

/// What weights, gradients and the optimizer's state are kept in.
inline at::ScalarType masters_of(Precision precision) {
  return precision == Precision::fp64 ? at::kDouble : at::kFloat;
}

/// How a model is described that is trained so; `batch`: rows of a full mini-batch.
inline GraphOptions graph_options(const TrainConfig& train, std::int64_t batch) {
  return {train.freeze, masters_of(train.precision), dtype_of(train.precision), batch};
}

/// Of one element of these.
inline double master_bytes(Precision precision) {
  return static_cast<double>(c10::elementSize(masters_of(precision)));
}

}  // namespace lockstep
