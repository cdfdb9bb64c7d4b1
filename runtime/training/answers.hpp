// SPDX-License-Identifier: Apache-2.0
//
// Answers of a trained model: the outputs of samples without targets, and what is made of them. It is an evaluation
// whose metric is the answers themselves, batch by batch, so the engine knows nothing of it.
//
// An answer must not depend on what else is in its batch. Kernels of LibTorch have classes of sizes, in which a row
// comes to other last digits, so every micro-batch has the same number of samples, the last ones filled up; and
// element-wise kernels treat what does not fill a vector in another way, so of small samples there are 64 or more.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "runtime/layer/layers.hpp"
#include "runtime/training/batch_reader.hpp"

namespace lockstep {

enum class Decision {
  numbers,  ///< what the activation makes of the outputs
  yes_no,   ///< of each output: yes where it is above 0
  classes,  ///< the class with the largest output, along the dimension of classes
};

/// The answer of a head for one sample, as numbers:
///
///   numbers   the `values` of the activation
///   yes_no    for each of them 0 or 1, then the activation
///   classes   for each place the class, then the activation of it; with `all` then that of every class
struct AnswerForm {
  Decision decision = Decision::numbers;
  std::string activation;           ///< "sigmoid"
  std::vector<std::int64_t> sizes;  ///< of a sample's output, without classes
  std::int64_t classes = 0;         ///< with Decision::classes
  bool all = false;
  bool is_double = false;  ///< numbers of float64, else they are float32

  std::int64_t values() const;        ///< elements of `sizes`
  std::int64_t numbers_each() const;  ///< of each of them
  std::int64_t numbers() const { return values() * numbers_each(); }
};

struct AnswerOptions {
  std::int64_t batch = 0;  ///< samples of a program, about; 0: those of an evaluation
  bool all = false;        ///< AnswerForm::all
};

/// Throws ConfigError when train.activation is not among `activations`.
void check_activation(const Config& config, const Table<ActivationKind>& activations);

/// The loss of a head whose samples have no targets: asks for none, and is 0.
std::shared_ptr<const Loss> without_targets(std::shared_ptr<const Loss> loss);

/// Lets an assembly whose data has inputs (DataSplits::inputs) answer them. Gives the form by head. Throws ConfigError
/// for an activation that is not among `activations`, ModelError for outputs that no decision can be made of.
std::vector<AnswerForm> with_answers(Assembly& assembly, const AnswerOptions& options,
                                     const Table<ActivationKind>& activations);

/// Some samples' answers.
struct Answers {
  std::int64_t first = 0, samples = 0;
  std::vector<std::vector<double>> heads;  ///< by head: AnswerForm::numbers() of each sample
};
using TakeAnswers = std::function<void(const Answers&)>;
using WaitForMore = std::function<std::optional<double>(const WaitLimits&)>;

/// Has the inputs answered in their order, and leaves.
class AnswerDirector : public Decider {
 public:
  /// `more`: when all samples have been answered, waits for others: microseconds that it took, or none when there will
  /// be no more; empty: there are none.
  /// `signalled`: raised from outside: leave; may be null. References outlive the director.
  AnswerDirector(const Assembly& assembly, BatchReader& reader, std::int64_t step, TakeAnswers take,
                 WaitForMore more = {}, const std::atomic<bool>* signalled = nullptr)
      : assembly_(assembly),
        reader_(reader),
        step_(step),
        give_(std::move(take)),
        more_(std::move(more)),
        signalled_(signalled) {}
  void take(StepResult& result) override;
  StepHeader next(const WaitLimits& limits) override;

 private:
  const Assembly& assembly_;
  BatchReader& reader_;
  std::int64_t step_;
  TakeAnswers give_;
  WaitForMore more_;
  const std::atomic<bool>* signalled_;
  std::int64_t position_ = 0;
  std::deque<std::pair<std::int64_t, std::int64_t>> asked_;  // first sample and number, of programs under way
  bool flushed_ = false, ended_ = false;
  StopReason stop_ = StopReason::finished;
};

}  // namespace lockstep
