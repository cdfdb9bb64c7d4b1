// SPDX-License-Identifier: Apache-2.0
//
// A metric says how good the outputs of a model are over a whole evaluation set: exactly, however the set is cut into
// batches, micro-batches, replicas. Each micro-batch gives a state, numbers in double; states are merged in the order
// of the samples, and the value is made of all of them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/layer/layer.hpp"

namespace lockstep {

class Metric {
 public:
  virtual ~Metric() = default;
  virtual std::string name() const = 0;  ///< "accuracy", "f1_macro": a key of metrics.jsonl

  // Outputs have their classes last, also where the loss has them second.

  /// Throws ModelError when it is not defined for such outputs and targets.
  virtual void check(const EntrySpec& output, const EntrySpec& targets) const = 0;
  /// Of one micro-batch: double [numbers], on the output's device. No grad mode.
  virtual at::Tensor state(const at::Tensor& output, const at::Tensor& targets) const = 0;
  /// Takes the state of the samples behind `all` in; at first `all` is empty. Default: adds element by element.
  virtual void merge(std::vector<double>& all, std::span<const double> more) const;
  /// Of a whole set. NaN where it is not defined: of no sample, of one class alone.
  virtual double value(const std::vector<double>& all) const = 0;
  /// Whether more of it is better: for checkpoint.best and early stopping.
  virtual bool more_is_better() const { return true; }
  /// What belongs to a picture of it, such as the counts of a confusion matrix; nothing: there is none.
  virtual std::vector<double> picture(const std::vector<double>& /*all*/) const { return {}; }
};

/// By head of the model.
using Metrics = std::vector<std::vector<std::shared_ptr<const Metric>>>;

/// A metric's name in results: of several heads "head_0/accuracy".
std::string metric_name(const Metrics& metrics, std::size_t head, const Metric& metric);

/// `tensor` with its classes last. `dimension`: where they are (Loss::class_dimension).
at::Tensor classes_last(const at::Tensor& tensor, std::int64_t dimension);
EntrySpec classes_last(EntrySpec spec, std::int64_t dimension);

}  // namespace lockstep
