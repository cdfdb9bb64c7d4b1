// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/evaluation.hpp"

#include "runtime/session/prepared_job.hpp"
#include "runtime/training/not_finite.hpp"

#include <map>

namespace lockstep {
namespace {

class Sums : public Observer {
 public:
  void on_result(const StepResult& result) override {
    if (result.mode != Mode::evaluate) return;
    StepResult& sum = sums_[result.set];
    if (result.non_finite.found() && !not_finite_)
      not_finite_ = NotFiniteRun{result.non_finite, result.mode, result.step, sum.samples, result.set};
    sum.add(result);
  }
  const StepResult& sum(int set) { return sums_[set]; }
  const std::optional<NotFiniteRun>& not_finite() const { return not_finite_; }

 private:
  std::map<int, StepResult> sums_;  // by set
  std::optional<NotFiniteRun> not_finite_;
};

}  // namespace

Evaluation evaluate(Process& process, const ConfigSource& source, const std::string& checkpoint, bool averaged) {
  const PreparedJob job = prepare_job(
      process, source, {.resume = checkpoint, .flag = "--checkpoint", .evaluates = true, .averaged = averaged});
  Trainer& trainer = *job.trainer;
  process.connect(trainer);
  Sums sums;
  RunOptions fit;
  fit.observer = &sums;
  trainer.evaluate(fit);
  Evaluation found{trainer.start().step, sums.sum(0).loss(), sums.sum(0).samples, sums.sum(0).metrics};
  found.class_names = trainer.data().class_names;
  int number = 0;
  for (const EvaluationSet& set : trainer.data().further_evals) {
    const StepResult& sum = sums.sum(++number);
    found.further.push_back({set.name, sum.loss(), sum.samples, sum.metrics});
  }
  if (sums.not_finite())
    found.not_finite = concat("the evaluation after step ", found.step,
                              " is not finite: ", describe(sums.not_finite()->first, trainer.graph()), " (",
                              samples_text(trainer.config(), trainer.data(), *sums.not_finite()),
                              "); look at the data of these samples");
  return found;
}

}  // namespace lockstep
