// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/evaluation.hpp"

#include "runtime/session/prepared_job.hpp"
#include "runtime/training/not_finite.hpp"

namespace lockstep {
namespace {

class Sum : public Observer {
 public:
  void on_result(const StepResult& result) override {
    if (result.mode != Mode::evaluate) return;
    if (result.non_finite.found() && !not_finite_)
      not_finite_ = NotFiniteRun{result.non_finite, result.mode, result.step, sum_.samples};
    sum_.add(result);
  }
  const StepResult& sum() const { return sum_; }
  const std::optional<NotFiniteRun>& not_finite() const { return not_finite_; }

 private:
  StepResult sum_;
  std::optional<NotFiniteRun> not_finite_;
};

}  // namespace

Evaluation evaluate(Process& process, const ConfigSource& source, const std::string& checkpoint, bool averaged) {
  const PreparedJob job = prepare_job(
      process, source, {.resume = checkpoint, .flag = "--checkpoint", .evaluates = true, .averaged = averaged});
  Trainer& trainer = *job.trainer;
  process.connect(trainer);
  Sum sum;
  RunOptions fit;
  fit.observer = &sum;
  trainer.evaluate(fit);
  Evaluation found{trainer.start().step, sum.sum().loss(), sum.sum().samples};
  if (sum.not_finite())
    found.not_finite = concat("the evaluation after step ", found.step,
                              " is not finite: ", describe(sum.not_finite()->first, trainer.graph()), " (",
                              samples_text(trainer.config(), trainer.data(), *sum.not_finite()),
                              "); look at the data of these samples");
  return found;
}

}  // namespace lockstep
