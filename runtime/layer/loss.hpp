// SPDX-License-Identifier: Apache-2.0
//
// A loss is never a mean: it is a numerator per micro-batch over one denominator of the whole mini-batch, so that
// uneven micro-batches, ignored targets and a short last batch are exact.
#pragma once

#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/layer/layer.hpp"

namespace lockstep {

/// The class or token that losses over classes leave out, as torch.nn.CrossEntropyLoss does.
inline constexpr std::int64_t kIgnoredTarget = -100;

/// The targets that a loss is defined for; outside of it there is a number too, but it is no loss.
struct TargetDomain {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  std::optional<std::int64_t> ignored = {};  ///< an integer beside them that does not count
  std::string text = {};                     ///< "numbers from 0 to 1"
  std::string advice = {};                   ///< what to do with others
};

class Loss {
 public:
  virtual ~Loss() = default;
  virtual std::string name() const = 0;

  /// What the model must put out for these targets; throws ModelError when they do not fit.
  virtual void check(const EntrySpec& output, const EntrySpec& targets) const = 0;

  /// Which targets fit this output. Looked at where the data is read, before a batch is used. Default: all numbers, but
  /// not NaN.
  virtual TargetDomain domain(const EntrySpec& /*output*/) const { return {}; }

  /// Which dimension of the output has a number per class, where targets are classes.
  virtual std::int64_t class_dimension() const { return -1; }

  /// What the summed loss of these targets is divided by: elements, or targets that are not ignored. Called by whoever
  /// reads the data, before the step; the sum over all micro-batches and replicas is N.
  virtual double denominator(const at::Tensor& targets) const = 0;

  /// Sum of the loss over one micro-batch: a scalar in the graph of `output`, of the dtype of for_loss(output).
  virtual at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const = 0;
};

/// What losses compute in: float32 whatever the precision of the model, but for float64, which stays.
at::Tensor for_loss(const at::Tensor& output);

/// By head of the model.
using Losses = std::vector<std::shared_ptr<const Loss>>;

}  // namespace lockstep
