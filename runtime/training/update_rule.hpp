// SPDX-License-Identifier: Apache-2.0
//
// What an optimizer is: a rule that says what it keeps beside a parameter, and makes one step of it. Plug-ins add
// theirs (docs/plugins.md). Learning rate, groups, weight decay's exceptions, clipping, checkpoints, the average of
// weights and the planner's bytes are not its business: they follow from what it says here.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/table.hpp"
#include "runtime/config/config.hpp"

namespace lockstep {

using Sizes = std::vector<std::int64_t>;

/// A tensor that is kept beside a parameter from step to step, of its dtype.
struct KeptTensor {
  std::string name;  ///< in checkpoints: "exp_avg"
  Sizes sizes;
  double initial = 0.0;
};

struct TrainedTensor {
  at::Tensor value;              ///< float32, or float64 with train.precision: fp64; updated in place
  at::Tensor gradient;           ///< of the value's dtype, clipped; never written to
  std::vector<at::Tensor> kept;  ///< those of keeps(), in its order; updated in place
};

struct UpdateStep {
  double lr = 0.0;            ///< the scheduled rate times the group's lr_scale
  double weight_decay = 0.0;  ///< of these parameters
  std::int64_t step = 0;      ///< from 1
};

/// A value: all workers share it, on threads of their own. What it remembers from step to step is what keeps() names,
/// and an update of a parameter looks at that parameter alone: then no bit depends on cuts, and checkpoints have all.
class UpdateRule {
 public:
  virtual ~UpdateRule() = default;
  virtual std::vector<KeptTensor> keeps(const Sizes& parameter) const = 0;
  virtual void update(TrainedTensor& parameter, const UpdateStep& step) const = 0;
  /// Whether each element depends on its own gradient and its own kept elements alone. Then replicas may update parts
  /// of a parameter: `update` sees some of its elements, in one dimension, with those of what is kept.
  virtual bool is_elementwise() const { return false; }
  /// Whether each row, of the first dimension, depends on its own gradient and on what is kept in its own rows alone.
  /// Then `update` may see some rows of a parameter, with those of what is kept: of a sparse one those that were used.
  virtual bool is_rowwise() const { return is_elementwise(); }
  /// All parameters with one rate and weight decay: for kernels that take lists. The same bits as one by one.
  virtual void update_all(std::vector<TrainedTensor>& parameters, const UpdateStep& step) const {
    for (TrainedTensor& parameter : parameters) update(parameter, step);
  }
};

struct OptimizerKind {
  std::string name;
  std::string summary;  ///< a line for `lockstep list optimizers`
  /// Of a plug-in: reads all of config.plugin.keys; what is wrong with them is a ConfigError.
  std::function<std::shared_ptr<const UpdateRule>(const OptimizerConfig& config)> make;
};

/// Those of OptimizerType, as torch.optim defines them: SGD, Adam (Kingma, Ba, 2015), AdamW (Loshchilov, Hutter, 2019)
/// and Adagrad (Duchi et al., 2011) by LibTorch's fused kernels, RMSprop (Hinton, 2012; centered: Graves, 2013) and
/// Adafactor (Shazeer, Stern, 2018) by its operators. All but Adafactor are element-wise.
Table<OptimizerKind> optimizer_kinds();

}  // namespace lockstep
