// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/answers.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "runtime/base/check.hpp"

namespace lockstep {
namespace {

constexpr const char* kIdentity = "identity";
constexpr const char* kSigmoid = "sigmoid";
constexpr const char* kSoftmax = "softmax";

class WithoutTargets : public Loss {
 public:
  explicit WithoutTargets(std::shared_ptr<const Loss> loss) : loss_(std::move(loss)) {}
  std::string name() const override { return loss_->name(); }
  void check(const EntrySpec& /*output*/, const EntrySpec& /*targets*/) const override {}
  std::int64_t class_dimension() const override { return loss_->class_dimension(); }
  std::string activation() const override { return loss_->activation(); }
  double denominator(const at::Tensor& /*targets*/) const override { return 1; }
  at::Tensor numerator(const at::Tensor& output, const at::Tensor& /*targets*/) const override {
    return at::zeros({}, output.options().dtype(at::kDouble));
  }

 private:
  std::shared_ptr<const Loss> loss_;
};

/// The answers themselves, one behind the other.
class AnswersOfSamples : public Metric {
 public:
  AnswersOfSamples(AnswerForm form, std::function<at::Tensor(const at::Tensor&)> activation)
      : form_(std::move(form)), activation_(std::move(activation)) {}
  std::string name() const override { return "answers"; }
  void check(const EntrySpec& /*output*/, const EntrySpec& /*targets*/) const override {}

  at::Tensor state(const at::Tensor& output, const at::Tensor& /*targets*/) const override {
    const at::Tensor wide = for_loss(output), activated = activation(wide);
    switch (form_.decision) {
      case Decision::numbers: return activated.to(at::kDouble);
      case Decision::yes_no: return at::stack({wide.gt(0).to(at::kDouble), activated.to(at::kDouble)}, -1);
      case Decision::classes: break;
    }
    const at::Tensor best = wide.argmax(-1, /*keepdim=*/true);
    std::vector<at::Tensor> parts = {best.to(at::kDouble), activated.gather(-1, best).to(at::kDouble)};
    if (form_.all) parts.push_back(activated.to(at::kDouble));
    return at::cat(parts, -1);
  }
  void merge(std::vector<double>& all, std::span<const double> more) const override {
    all.insert(all.end(), more.begin(), more.end());
  }
  double value(const std::vector<double>& /*all*/) const override { return 0; }
  std::vector<double> picture(const std::vector<double>& all) const override { return all; }

 private:
  /// Element by element in double, rounded: what LibTorch computes by vectors and what is left over behind them differ
  /// in the last bit, so that an answer would depend on its place in the batch. Shares of classes are computed row by
  /// row.
  at::Tensor activation(const at::Tensor& wide) const {
    if (form_.decision == Decision::classes) return activation_(wide);
    return activation_(wide.to(at::kDouble)).to(wide.scalar_type());
  }

  AnswerForm form_;
  std::function<at::Tensor(const at::Tensor&)> activation_;
};

std::function<at::Tensor(const at::Tensor&)> function_of(const std::string& name, const Config& config,
                                                         const Table<ActivationKind>& activations) {
  if (name == kIdentity) return [](const at::Tensor& output) { return output; };
  if (name == kSoftmax) return [](const at::Tensor& output) { return at::softmax(output, -1); };
  if (const ActivationKind* kind = activations.find(name)) return kind->apply;
  std::vector<std::string> names = activations.names();
  names.insert(names.begin(), {kIdentity, kSoftmax});
  throw config.root.section("train").error(
      "activation", concat("got '", name, "', expected one of ", join(names), did_you_mean(name, names)));
}

Decision decision_of(Task task, const std::string& activation) {
  switch (task) {
    case Task::regression: return Decision::numbers;
    case Task::binary:
    case Task::multilabel: return Decision::yes_no;
    case Task::multiclass:
    case Task::language_modelling:
    case Task::segmentation: return Decision::classes;
    case Task::none: break;
  }
  if (activation == kSoftmax) return Decision::classes;
  return activation == kSigmoid ? Decision::yes_no : Decision::numbers;
}

AnswerForm form_of(const Assembly& assembly, std::size_t head, const AnswerOptions& options) {
  const Config& config = assembly.config;
  const bool by_config = assembly.model.heads[head].loss.empty();
  const Loss& loss = *assembly.losses[head];
  const GraphHead& of = assembly.graph.heads[head];
  const EntrySpec output =
      classes_last(assembly.graph.values[static_cast<std::size_t>(of.output)].spec, loss.class_dimension());
  AnswerForm form;
  form.activation = by_config && !config.train.activation.empty() ? config.train.activation : loss.activation();
  form.decision = decision_of(by_config ? config.train.task : Task::none, form.activation);
  form.sizes.assign(output.sizes.begin() + 1, output.sizes.end());
  form.is_double = config.train.precision == Precision::fp64;
  if (form.decision != Decision::classes) return form;
  if (form.sizes.empty())
    throw ModelError(concat("the model puts out ", to_string(output), ", of which no class can be chosen; expected ",
                            "[rows, ..., classes]"));
  form.classes = form.sizes.back();
  form.sizes.pop_back();
  form.all = options.all;
  return form;
}

/// Samples of a micro-batch, from how many there would be.
std::int64_t whole_rows(const Assembly& assembly, std::int64_t rows) {
  constexpr std::int64_t vector = 64, most = std::int64_t{1} << 22;  // elements of bfloat16 that AVX-512 does at once
  std::int64_t largest = 1;                                          // elements of a sample
  for (const Value& value : assembly.graph.values) {
    const std::vector<std::int64_t>& sizes = value.spec.sizes;
    if (sizes.empty()) continue;
    largest = std::max(largest, std::accumulate(sizes.begin() + 1, sizes.end(), std::int64_t{1}, std::multiplies<>()));
  }
  return largest * vector <= most ? (rows + vector - 1) / vector * vector : rows;
}

}  // namespace

std::int64_t AnswerForm::values() const {
  return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1}, std::multiplies<>());
}

std::int64_t AnswerForm::numbers_each() const {
  switch (decision) {
    case Decision::numbers: return 1;
    case Decision::yes_no: return 2;
    case Decision::classes: return 2 + (all ? classes : 0);
  }
  return 0;
}

void check_activation(const Config& config, const Table<ActivationKind>& activations) {
  if (!config.train.activation.empty()) function_of(config.train.activation, config, activations);
}

std::shared_ptr<const Loss> without_targets(std::shared_ptr<const Loss> loss) {
  return std::make_shared<WithoutTargets>(std::move(loss));
}

std::vector<AnswerForm> with_answers(Assembly& assembly, const AnswerOptions& options,
                                     const Table<ActivationKind>& activations) {
  LOCKSTEP_CHECK(assembly.data.inputs, "data with targets");
  TrainConfig& train = assembly.config.train;
  std::vector<AnswerForm> forms;
  assembly.metrics.clear();
  for (std::size_t head = 0; head < assembly.losses.size(); ++head) {
    forms.push_back(form_of(assembly, head, options));
    assembly.metrics.push_back({std::make_shared<AnswersOfSamples>(
        forms.back(), function_of(forms.back().activation, assembly.config, activations))});
  }
  const std::int64_t batch = options.batch > 0 ? options.batch : train.rows_of_evaluation();
  const std::int64_t micro_batches = std::min<std::int64_t>(train.micro_batches, batch);
  assembly.answer_rows = whole_rows(assembly, (batch + micro_batches - 1) / micro_batches);
  train.eval_batch = assembly.answer_rows * micro_batches;
  return forms;
}

void AnswerDirector::take(StepResult& result) {
  if (result.mode != Mode::evaluate) return;
  if (result.signalled && stop_ == StopReason::finished) stop_ = StopReason::signal;
  if (result.non_finite.found()) stop_ = StopReason::not_finite;
  const auto [first, samples] = asked_.front();
  asked_.pop_front();
  Answers answers{first, samples, {}};
  for (MetricValue& metric : result.metrics) {
    const std::size_t each = metric.picture.size() / static_cast<std::size_t>(result.samples);
    answers.heads.push_back(std::move(metric.picture));
    answers.heads.back().resize(each * static_cast<std::size_t>(samples));  // without what filled it up
  }
  if (stop_ == StopReason::finished) give_(answers);
}

StepHeader AnswerDirector::next(const WaitLimits& limits) {
  StepHeader header;
  header.step = step_;
  if (stop_ == StopReason::finished && signalled_ && signalled_->load()) stop_ = StopReason::signal;
  const auto all = [&] { return evaluation_set(assembly_.data, 0).size(); };
  if (stop_ == StopReason::finished && position_ >= all() && flushed_ && !ended_) {
    const std::optional<double> idle_us = more_ ? more_(limits) : std::nullopt;
    header.idle_us = idle_us.value_or(0);
    ended_ = !idle_us;
  }
  if (stop_ != StopReason::finished || ended_ || position_ >= all()) {
    const bool stops = flushed_ && (ended_ || stop_ != StopReason::finished);
    header.mode = stops ? Mode::stop : Mode::flush;
    header.stop = stop_;
    flushed_ = true;
    return header;
  }
  flushed_ = false;
  header.mode = Mode::evaluate;
  header.last_of_evaluation = true;  // each batch is one of its own
  reader_.open(header, position_);
  const std::int64_t rows = std::accumulate(header.slices.begin(), header.slices.end(), std::int64_t{0});
  asked_.emplace_back(position_, std::min(rows, all() - position_));
  position_ += asked_.back().second;
  return header;
}

}  // namespace lockstep
