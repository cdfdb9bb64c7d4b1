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

  /// What makes an answer of the output, where the config names none: sigmoid, softmax (over the classes), or identity.
  virtual std::string activation() const { return "identity"; }

  /// The targets as metrics take them: classes that do not count are kIgnoredTarget, yes and no are numbers of the
  /// output's shape. Default: as they are.
  virtual EntrySpec for_metrics(const EntrySpec& /*output*/, const EntrySpec& targets) const { return targets; }
  virtual at::Tensor for_metrics(const at::Tensor& /*output*/, const at::Tensor& targets) const { return targets; }

  /// What the summed loss of these targets is divided by: elements, or targets that are not ignored. Called by whoever
  /// reads the data, before the step; the sum over all micro-batches and replicas is N.
  virtual double denominator(const at::Tensor& targets) const = 0;

  /// Whether it has the next two, for samples with weights.
  virtual bool takes_weights() const { return false; }
  /// What each sample adds to the denominator: double [rows].
  virtual at::Tensor denominators(const at::Tensor& targets) const;
  /// The summed loss of each sample: [rows], as numerator().
  virtual at::Tensor numerators(const at::Tensor& output, const at::Tensor& targets) const;

  /// Sum of the loss over one micro-batch: a scalar in the graph of `output`, of the dtype of for_loss(output).
  virtual at::Tensor numerator(const at::Tensor& output, const at::Tensor& targets) const = 0;
};

/// What losses compute in: float32 whatever the precision of the model, but for float64, which stays.
at::Tensor for_loss(const at::Tensor& output);

/// An entry of the data, float32 [rows]: what each sample counts in every loss. Where there is one, the summed loss of
/// a sample and what it adds to the denominator are both multiplied by it.
inline constexpr const char* kSampleWeights = "sample_weights";

/// By head of the model.
using Losses = std::vector<std::shared_ptr<const Loss>>;

}  // namespace lockstep
