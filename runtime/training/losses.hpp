// SPDX-License-Identifier: Apache-2.0
//
// The losses by name. Numerators are computed in float32 whatever the precision of the model, with fp64 in float64.
//
// Targets are float32 of the shape of the output (numbers; yes and no from 0 to 1; shares of classes, last), or int64
// without the dimension of classes. Outputs are logits, never probabilities.
//
//   mean_squared_error         sum (output - target)^2 / elements
//   mean_absolute_error        sum |output - target| / elements
//   huber                      with e = |output - target|: e^2 / 2 where e <= delta (1), else delta (e - delta / 2)
//                              (Huber, 1964; torch.nn.HuberLoss, Keras' Huber)
//   binary_cross_entropy       torch.nn.BCEWithLogitsLoss; positive_weight (1) multiplies the yes part;
//                              label_smoothing (0): targets t (1 - s) + s / 2 (Keras; PyTorch has none)
//   hinge, squared_hinge       sum max(0, 1 - (2 target - 1) output), or its square, / elements (Keras' with targets 0
//                              and 1; it takes -1 and 1 too)
//   categorical_hinge          per row max(0, 1 + max((1 - target) output) - sum target output) / rows (Keras')
//   categorical_cross_entropy  -sum target log softmax(output) / rows; label_smoothing: t (1 - s) + s / classes
//   sparse_categorical_cross_entropy   -sum log softmax(output)[target] / targets that count; output [..., classes]
//   segmentation_cross_entropy         the same with the classes second: output [rows, classes, height, width]
//     both: ignore_index (-100) does not count; label_smoothing (0) and class_weights ([]: all 1), by which the loss of
//     a target is multiplied and, as in PyTorch, the denominator too: the sum of the weights of targets that count
//     (Keras divides by their number)
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/table.hpp"
#include "runtime/config/section.hpp"
#include "runtime/layer/loss.hpp"

namespace lockstep {

struct LossKind {
  std::string name;
  std::string summary;  ///< one line for `lockstep list losses`
  /// Reads all keys but `type`; what is wrong with them is a ConfigError.
  std::function<std::unique_ptr<Loss>(const Section& options)> make;

  LossKind(std::string its_name, std::string its_summary, std::function<std::unique_ptr<Loss>(const Section&)> maker)
      : name(std::move(its_name)), summary(std::move(its_summary)), make(std::move(maker)) {}
  /// One without options.
  LossKind(std::string its_name, std::string its_summary, std::function<std::unique_ptr<Loss>()> maker)
      : name(std::move(its_name)),
        summary(std::move(its_summary)),
        make([maker = std::move(maker)](const Section&) { return maker(); }) {}
};

Table<LossKind> loss_kinds();

}  // namespace lockstep
