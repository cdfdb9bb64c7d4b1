// SPDX-License-Identifier: Apache-2.0
//
// The losses by name. Numerators are computed in float32 whatever the precision of the model, with fp64 in float64.
//
//   mean_squared_error                 sum (output - targets)^2 / elements; targets: float32, finite, shape of the
//                                      output
//   sparse_categorical_cross_entropy   -sum log softmax(output)[target] / targets that are not -100; output [...,
//   classes],
//                                      targets int64 [...], in [0, classes) or -100
//   segmentation_cross_entropy         the same with the classes second: output [rows, classes, height, width], targets
//                                      int64 [rows, height, width]; / targets that are not -100
//   binary_cross_entropy               with logits, targets float32 in [0, 1], shape of the output; / elements
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/table.hpp"
#include "runtime/layer/loss.hpp"

namespace lockstep {

struct LossKind {
  std::string name;
  std::string summary;  ///< one line for `lockstep list losses`
  std::function<std::unique_ptr<Loss>()> make;
};

Table<LossKind> loss_kinds();

}  // namespace lockstep
