// SPDX-License-Identifier: Apache-2.0
//
// The metrics by name. Targets are classes (int64; a class that the loss ignores, -100, does not count) with a number
// per class in the output, or numbers of the output's shape: then the output is a logit, yes where it is above 0, and
// the target is yes above 0.5; the last dimension is that of the labels. Every value is that of scikit-learn 1.x on the
// same predictions where it has one, with zero_division=0.
//
//   accuracy              right / all; of labels: each counts by itself (Hamming, not scikit-learn's subset accuracy)
//   top_k_accuracy        k: 5; a target counts when fewer than k classes have a larger output
//   precision, recall, f1 average: macro (default: of the classes that occur in targets or predictions), micro,
//                         weighted (by targets); of one label: that of yes
//   roc_auc               macro average over labels, or over classes against the rest (then of the softmax)
//   pr_auc                average precision: the sum over thresholds of precision times the step in recall (not the
//                         trapezoids that Keras adds up), averaged as roc_auc
//   confusion_matrix      accuracy; its picture: counts [target, prediction]
//   mean_absolute_error, root_mean_squared_error, r2 (the mean over output columns)
//   perplexity            exp of the mean cross-entropy
//   mean_iou              intersection over union, the mean over classes that occur in targets or predictions
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/base/table.hpp"
#include "runtime/config/section.hpp"
#include "runtime/layer/metric.hpp"

namespace lockstep {

struct MetricKind {
  std::string name;
  std::string summary;  ///< one line for `lockstep list metrics`
  /// Reads all keys but `type`; what is wrong with them is a ConfigError.
  std::function<std::unique_ptr<Metric>(const Section& options)> make;
};

Table<MetricKind> metric_kinds();

}  // namespace lockstep
