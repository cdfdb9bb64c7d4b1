// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cmath>
#include <iomanip>
#include <iostream>

#include "runtime/session/evaluation.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

struct EvalOptions {
  ConfigSource source;
  std::string checkpoint;
  bool averaged = false;
};

/// A line each; of a confusion matrix a line per class of the targets.
void print(const std::string& set, const std::vector<MetricValue>& metrics,
           const std::vector<std::string>& classes_of) {
  for (const MetricValue& metric : metrics) {
    std::cout << "  " << set << metric.name << " " << metric.value << "\n";
    if (!metric.name.ends_with("confusion_matrix")) continue;  // curves are for the report page
    const auto classes = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(metric.picture.size()))));
    for (std::size_t row = 0; row < classes; ++row)
      std::cout << "    " << (row < classes_of.size() ? classes_of[row] : concat(row)) << ": "
                << join(std::vector<double>(metric.picture.begin() + static_cast<std::ptrdiff_t>(row * classes),
                                            metric.picture.begin() + static_cast<std::ptrdiff_t>((row + 1) * classes)))
                << "\n";
  }
  std::cout << std::flush;
}

int eval(const EvalOptions& options) {
  return run_ranks([&](Process& process) {
    const Evaluation found = evaluate(process, options.source, options.checkpoint, options.averaged);
    if (!found.not_finite.empty()) {
      if (process.is_root()) std::cerr << "lockstep: " << found.not_finite << std::endl;
      return static_cast<int>(ExitCode::fault);
    }
    if (!process.is_root()) return 0;
    std::cout << "step " << found.step << "  eval loss " << std::setprecision(9) << found.loss << "  (" << found.samples
              << " samples)" << std::endl;
    print("", found.metrics, found.class_names);
    for (const EvaluatedSet& set : found.further) {
      std::cout << "step " << found.step << "  " << set.name << " loss " << set.loss << "  (" << set.samples
                << " samples)" << std::endl;
      print(set.name + " ", set.metrics, found.class_names);
    }
    return 0;
  });
}

}  // namespace

void add_eval(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("eval", "Evaluate a checkpoint on the config's evaluation set");
  auto options = std::make_shared<EvalOptions>();
  add_config_flags(*verb, options->source);
  add_plan_flag(*verb, options->source);
  verb->add_option("--checkpoint", options->checkpoint, "The folder of a checkpoint")->required()->type_name("DIR");
  verb->add_flag("--ema", options->averaged, "With the averages of its weights (train.ema) in their place");
  verb->footer(
      "Example:\n  lockstep eval configs/quickstart.yaml --checkpoint runs/quickstart/checkpoints/step-00000100");
  verb->callback([options, &command] { command = [options] { return eval(*options); }; });
}

}  // namespace lockstep
