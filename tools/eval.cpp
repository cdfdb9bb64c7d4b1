// SPDX-License-Identifier: Apache-2.0
//
// `lockstep eval`: the loss of a checkpoint on the evaluation set. Evaluation is a program of the engine: a job that
// resumes where nothing is left to train evaluates and leaves.
#include <CLI/CLI.hpp>
#include <iomanip>
#include <iostream>

#include "runtime/training/data_record.hpp"
#include "runtime/training/reporter.hpp"
#include "tools/planning.hpp"
#include "tools/resume.hpp"

namespace lockstep {
namespace {

struct EvalOptions {
  ConfigSource source;
  std::string checkpoint;
};

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

int evaluate(const EvalOptions& options) {
  Process process;
  std::unique_ptr<Trainer> trainer;
  LoadedConfig loaded;
  Config& config = loaded.config;
  process.together([&] { choose_checkpoint(process, options.checkpoint, "", "--checkpoint"); });
  process.together([&] {
    loaded = options.source.load();
    loaded.trained = trained_on(options.checkpoint);
  });
  resolve_partition(process, options.source.path, loaded);
  process.together([&] {
    config.checkpoint = {};
    config.train.eval_every = 1;
    config.train.stop_on_nan = true;  // who asks for one evaluation wants to know
    resolve_kernels(config);
    trainer = make_trainer(loaded, process.ranks());
    trainer->resume(options.checkpoint, {.evaluates = true});
  });
  process.compare(*trainer);
  try {
    process.connect(*trainer);
    Sum sum;
    FitOptions fit;
    fit.observer = &sum;
    trainer->evaluate(fit);
    if (sum.not_finite()) {
      if (process.is_root())
        std::cerr << "lockstep: the evaluation after step " << trainer->start().step
                  << " is not finite: " << describe(sum.not_finite()->first, trainer->graph()) << " ("
                  << samples_text(trainer->config(), trainer->data(), *sum.not_finite())
                  << "); look at the data of these samples" << std::endl;
      return static_cast<int>(ExitCode::fault);
    }
    if (process.is_root())
      std::cout << "step " << trainer->start().step << "  eval loss " << std::setprecision(9) << sum.sum().loss()
                << "  (" << sum.sum().samples << " samples)" << std::endl;
    return 0;
  } catch (const Error& error) {
    process.fail(error);
  }
}

}  // namespace

void add_eval(CLI::App& app, std::function<int()>& command) {
  CLI::App* verb = app.add_subcommand("eval", "Evaluate a checkpoint on the config's evaluation set");
  auto options = std::make_shared<EvalOptions>();
  options->source.add_flags(*verb);
  options->source.add_plan_flag(*verb);
  verb->add_option("--checkpoint", options->checkpoint, "The folder of a checkpoint")->required()->type_name("DIR");
  verb->footer(
      "Example:\n  lockstep eval configs/quickstart.yaml --checkpoint runs/quickstart/checkpoints/step-00000100");
  verb->callback([options, &command] { command = [options] { return evaluate(*options); }; });
}

}  // namespace lockstep
