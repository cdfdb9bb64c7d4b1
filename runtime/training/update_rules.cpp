// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "runtime/training/update_rule.hpp"

namespace lockstep {
namespace {

using Parameters = std::vector<TrainedTensor>;

std::vector<at::Tensor> column(const Parameters& parameters, at::Tensor TrainedTensor::*member) {
  std::vector<at::Tensor> tensors;
  for (const TrainedTensor& parameter : parameters) tensors.push_back(parameter.*member);
  return tensors;
}

std::vector<at::Tensor> kept_column(const Parameters& parameters, std::size_t index) {
  std::vector<at::Tensor> tensors;
  for (const TrainedTensor& parameter : parameters) tensors.push_back(parameter.kept[index]);
  return tensors;
}

/// What the fused kernels read: a count per parameter, float32 for every precision (a device's take its bytes for
/// that). It is the job's.
std::vector<at::Tensor> step_column(const Parameters& parameters, std::int64_t step) {
  const at::Tensor count =
      at::full({}, static_cast<double>(step), parameters.front().value.options().dtype(at::kFloat));
  return std::vector<at::Tensor>(parameters.size(), count);
}

/// A kernel of LibTorch's that takes lists.
class FusedRule : public UpdateRule {
 public:
  bool is_elementwise() const final { return true; }
  void update(TrainedTensor& parameter, const UpdateStep& step) const final {
    Parameters one = {parameter};
    update_all(one, step);
  }
};

class Sgd : public FusedRule {
 public:
  explicit Sgd(const OptimizerConfig& config) : config_(config) {}
  std::vector<KeptTensor> keeps(const Sizes& parameter) const override {
    if (config_.momentum > 0) return {{"momentum_buffer", parameter}};
    return {};
  }
  void update_all(Parameters& parameters, const UpdateStep& step) const override {
    at::_fused_sgd_(column(parameters, &TrainedTensor::value), column(parameters, &TrainedTensor::gradient),
                    config_.momentum > 0 ? kept_column(parameters, 0) : std::vector<at::Tensor>{}, step.weight_decay,
                    config_.momentum, step.lr, config_.dampening, config_.nesterov, /*maximize=*/false,
                    /*is_first_step=*/config_.momentum > 0 && step.step == 1);
  }

 private:
  OptimizerConfig config_;
};

class Adam : public FusedRule {
 public:
  explicit Adam(const OptimizerConfig& config) : config_(config) {}
  std::vector<KeptTensor> keeps(const Sizes& parameter) const override {
    return {{"exp_avg", parameter}, {"exp_avg_sq", parameter}};
  }
  void update_all(Parameters& parameters, const UpdateStep& step) const override {
    const auto fused = [&](auto kernel) {
      kernel(column(parameters, &TrainedTensor::value), column(parameters, &TrainedTensor::gradient),
             kept_column(parameters, 0), kept_column(parameters, 1), at::TensorList{},
             step_column(parameters, step.step), step.lr, config_.beta1, config_.beta2, step.weight_decay, config_.eps,
             /*amsgrad=*/false, /*maximize=*/false, std::nullopt, std::nullopt);
    };
    using Kernel = void (*)(at::TensorList, at::TensorList, at::TensorList, at::TensorList, at::TensorList,
                            at::TensorList, double, double, double, double, double, bool, bool,
                            const std::optional<at::Tensor>&, const std::optional<at::Tensor>&);
    fused(config_.type == OptimizerType::adam ? static_cast<Kernel>(at::_fused_adam_)
                                              : static_cast<Kernel>(at::_fused_adamw_));
  }

 private:
  OptimizerConfig config_;
};

class Adagrad : public FusedRule {
 public:
  explicit Adagrad(const OptimizerConfig& config) : config_(config) {}
  std::vector<KeptTensor> keeps(const Sizes& parameter) const override {
    return {{"sum", parameter, config_.initial_accumulator_value}};
  }
  void update_all(Parameters& parameters, const UpdateStep& step) const override {
    std::vector<at::Tensor> values = column(parameters, &TrainedTensor::value), sums = kept_column(parameters, 0),
                            steps = step_column(parameters, step.step);
    at::_fused_adagrad_(values, column(parameters, &TrainedTensor::gradient), sums, steps, step.lr, config_.lr_decay,
                        step.weight_decay, config_.eps, /*maximize=*/false);
  }

 private:
  OptimizerConfig config_;
};

class RmsProp : public UpdateRule {
 public:
  explicit RmsProp(const OptimizerConfig& config) : config_(config) {}
  bool is_elementwise() const override { return true; }
  std::vector<KeptTensor> keeps(const Sizes& parameter) const override {
    std::vector<KeptTensor> kept = {{"square_avg", parameter}};
    if (config_.centered) kept.push_back({"grad_avg", parameter});
    if (config_.momentum > 0) kept.push_back({"momentum_buffer", parameter});
    return kept;
  }
  void update(TrainedTensor& parameter, const UpdateStep& step) const override {
    at::Tensor gradient = parameter.gradient;
    if (step.weight_decay != 0) gradient = gradient.add(parameter.value, step.weight_decay);
    at::Tensor& square = parameter.kept[0];
    square.mul_(config_.alpha).addcmul_(gradient, gradient, 1 - config_.alpha);
    at::Tensor root;
    if (config_.centered) {
      at::Tensor& average = parameter.kept[1];
      average.lerp_(gradient, 1 - config_.alpha);
      root = square.addcmul(average, average, -1).sqrt_();
    } else {
      root = square.sqrt();
    }
    root.add_(config_.eps);
    if (config_.momentum > 0) {
      parameter.kept.back().mul_(config_.momentum).addcdiv_(gradient, root);
      parameter.value.add_(parameter.kept.back(), -step.lr);
    } else {
      parameter.value.addcdiv_(gradient, root, -step.lr);
    }
  }

 private:
  OptimizerConfig config_;
};

/// Of two or more dimensions the squares are kept as the means of rows and columns of the last two. The step's size
/// depends on norms of the whole tensor, which is on one worker.
class Adafactor : public UpdateRule {
 public:
  explicit Adafactor(const OptimizerConfig& config) : config_(config) {}
  std::vector<KeptTensor> keeps(const Sizes& parameter) const override {
    if (parameter.size() < 2) return {{"variance", parameter}};
    Sizes rows = parameter, columns = parameter;
    rows[rows.size() - 1] = 1;
    columns[columns.size() - 2] = 1;
    return {{"row_var", rows}, {"col_var", columns}};
  }
  void update(TrainedTensor& parameter, const UpdateStep& step) const override {
    const at::Tensor &gradient = parameter.gradient, &value = parameter.value;
    const auto at = static_cast<double>(step.step);
    const double fresh = std::pow(at, config_.beta2_decay), root_of_size = std::sqrt(gradient.numel());
    const at::Tensor rate =
        (norm(value) / root_of_size).clamp_min_(config_.eps2) * std::min(step.lr, 1 / std::sqrt(at));
    if (step.weight_decay != 0) value.mul_(1 - step.lr * step.weight_decay);
    at::Tensor update = variance(parameter, fresh).clamp_min_(config_.eps1 * config_.eps1).rsqrt_().mul_(gradient);
    const at::Tensor factor = -rate / (norm(update) / (root_of_size * config_.d)).clamp_min_(1.0);
    if (value.device().is_cpu())
      value.add_(update, factor.item<double>());
    else  // nobody waits for a device
      value.addcmul_(update, factor);
  }

 private:
  static at::Tensor norm(const at::Tensor& tensor) { return at::linalg_vector_norm(tensor, 2).to(at::kDouble); }
  static at::Tensor mean_of_squares(const at::Tensor& gradient, std::int64_t dimension) {
    return at::linalg_vector_norm(gradient, 2, dimension, /*keepdim=*/true).square_().div_(gradient.size(dimension));
  }
  /// A new tensor.
  at::Tensor variance(TrainedTensor& parameter, double fresh) const {
    const at::Tensor& gradient = parameter.gradient;
    if (gradient.dim() < 2) return parameter.kept[0].lerp_(gradient * gradient, fresh).clone();
    at::Tensor &rows = parameter.kept[0], &columns = parameter.kept[1];
    rows.lerp_(mean_of_squares(gradient, -1), fresh);
    columns.lerp_(mean_of_squares(gradient, -2), fresh);
    return at::matmul(rows, columns).div_(rows.mean(-2, /*keepdim=*/true).clamp_min_(config_.eps1));
  }

  OptimizerConfig config_;
};

/// One sum a row, of the mean of its squares: fbgemm's EXACT_ROWWISE_ADAGRAD, of TorchRec.
class RowwiseAdagrad : public UpdateRule {
 public:
  explicit RowwiseAdagrad(const OptimizerConfig& config) : config_(config) {}
  bool is_rowwise() const override { return true; }
  std::vector<KeptTensor> keeps(const Sizes& parameter) const override {
    Sizes rows = parameter;
    if (rows.size() > 1) rows.resize(1);
    return {{"sum", rows, config_.initial_accumulator_value}};
  }
  void update(TrainedTensor& parameter, const UpdateStep& step) const override {
    at::Tensor gradient = parameter.gradient;
    if (step.weight_decay != 0) gradient = gradient.add(parameter.value, step.weight_decay);
    at::Tensor& sum = parameter.kept[0];
    const at::Tensor squares = gradient * gradient;
    sum.add_(gradient.dim() > 1 ? squares.flatten(1).mean(1) : squares);
    Sizes beside(static_cast<std::size_t>(gradient.dim()), 1);
    if (gradient.dim() > 0) beside[0] = gradient.size(0);
    const double rate = step.lr / (1 + static_cast<double>(step.step - 1) * config_.lr_decay);
    parameter.value.addcdiv_(gradient, sum.sqrt().add_(config_.eps).view(beside), -rate);
  }

 private:
  OptimizerConfig config_;
};

const char* summary_of(OptimizerType type) {
  switch (type) {
    case OptimizerType::sgd: return "stochastic gradient descent, with momentum, Nesterov's too";
    case OptimizerType::adam: return "Adam (Kingma, Ba, 2015); weight decay goes through its moments";
    case OptimizerType::adamw: return "AdamW (Loshchilov, Hutter, 2019); weight decay beside them";
    case OptimizerType::rmsprop: return "gradients divided by a moving root mean square (Hinton, 2012)";
    case OptimizerType::adagrad: return "gradients divided by the root of all squares so far (Duchi et al., 2011)";
    case OptimizerType::rowwise_adagrad: return "Adagrad with one sum of mean squares a row: for tables of embeddings";
    case OptimizerType::adafactor:
      return "Adafactor (Shazeer, Stern, 2018): squares by rows and columns, little memory";
  }
  return "";
}

template <typename Rule>
std::shared_ptr<const UpdateRule> make(const OptimizerConfig& config) {
  return std::make_shared<Rule>(config);
}

}  // namespace

Table<OptimizerKind> optimizer_kinds() {
  using enum OptimizerType;
  std::vector<OptimizerKind> kinds;
  const auto add = [&](OptimizerType type, const auto& maker) {
    kinds.push_back({to_string(type), summary_of(type), maker});
  };
  add(sgd, make<Sgd>);
  add(adam, make<Adam>);
  add(adamw, make<Adam>);
  add(rmsprop, make<RmsProp>);
  add(adagrad, make<Adagrad>);
  add(rowwise_adagrad, make<RowwiseAdagrad>);
  add(adafactor, make<Adafactor>);
  return {"optimizer", std::move(kinds)};
}

}  // namespace lockstep
