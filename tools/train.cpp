// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <map>

#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/base/text_table.hpp"
#include "runtime/schedule/schedule_text.hpp"
#include "runtime/session/make_trainer.hpp"
#include "runtime/session/plan_table.hpp"
#include "runtime/session/planning.hpp"
#include "runtime/session/prepared_job.hpp"
#include "runtime/session/train_run.hpp"
#include "runtime/training/schedule_choice.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

/// Parameters, gradients and optimizer state of each stage: what is known without costs.
std::string memory_of_state(const Trainer& trainer) {
  std::map<std::string, std::vector<int>> stages_of;  // stages alike are said once
  std::vector<std::string> order;
  const std::vector<double> bytes = state_bytes_of_stages(trainer.assembly());
  for (int stage = 0; stage < trainer.partition().stages(); ++stage) {
    const std::string size = size_text(bytes[static_cast<std::size_t>(stage)]);
    std::vector<int>& stages = stages_of[size];
    if (stages.empty()) order.push_back(size);
    stages.push_back(stage);
  }
  std::string text;
  for (const std::string& size : order) {
    const std::vector<int>& stages = stages_of.at(size);
    text += concat(stages.size() == 1 ? "stage " : "stages ", ranges_text(stages),
                   ": parameters, gradients and optimizer state need ", size, stages.size() == 1 ? "" : " each",
                   ", activations come on top\n");
  }
  return text;
}

int dry_run(Process& process, const TrainOptions& options) {
  const PreparedJob job = prepare_job(process, options.source, {.resume = options.resume, .changes = options.changes});
  if (!process.is_root()) return 0;
  const Trainer& trainer = *job.trainer;
  const LoadedConfig& loaded = job.loaded;
  const Program& program = trainer.programs().get(Mode::train, trainer.micro_batches());
  const bool planned = loaded.plan && loaded.plan->predicted, given = trainer.config().pipeline.costs.given;
  const Simulation simulation =
      simulate(program, planned ? loaded.plan->predicted->costs : costs_of(trainer.config(), trainer.partition()));
  DrawOptions drawing;
  drawing.width = columns_of_terminal(STDOUT_FILENO, drawing.width);
  for (const std::string& note : loaded.notes) std::cout << note << "\n";
  std::cout << (planned ? plan_table(*loaded.plan) : stage_table(trainer) + "\n") << "\ntimeline of one step, "
            << (planned ? "with the plan's costs:\n"
                : given ? "with pipeline.costs:\n"
                        : "as if all stages took the same time (forward 1, backward 2):\n")
            << draw(simulation.timeline, drawing) << "bubble " << percent_text(simulation.bubble) << "\n\n";
  if (!planned) std::cout << memory_of_state(trainer);
  for (const std::string& warning : trainer.warnings()) std::cout << "warning: " << warning << "\n";
  std::cout << "dry run: nothing was trained or written\n";
  return 0;
}

}  // namespace

void add_train(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("train", "Train a model, in this process or on the ranks of an mpirun");
  auto options = std::make_shared<TrainOptions>();
  const auto is_dry = std::make_shared<bool>(false);
  add_config_flags(*verb, options->source);
  add_plan_flag(*verb, options->source);
  verb->add_option("--metrics", options->metrics, "JSON lines, one per step; default: metrics.jsonl in the run folder")
      ->type_name("FILE");
  verb->add_option("--fingerprint", options->fingerprint, "Write a 64-bit hash per parameter, to compare runs")
      ->type_name("FILE");
  verb->add_option_function<std::string>(
          "--init-from", [options](const std::string& path) { set_text(options->source, "train.init_from", path); },
          "Start with these weights: a checkpoint, a folder of safetensors files (Hugging Face's), or one such file; "
          "train.init says what may differ")
      ->type_name("DIR|FILE");
  verb->add_option("--resume", options->resume,
                   "Go on from a checkpoint folder, or from the newest good one of the run folder (auto), which starts "
                   "from the beginning when there is none yet")
      ->type_name("auto|DIR");
  verb->add_option(
          "--change", options->changes,
          "With --resume: go on with another value than the checkpoint's, knowingly (repeatable); KEY alone: with "
          "what the config has there; data: with other data")
      ->take_all()
      ->type_name("KEY[=VALUE]");
  verb->add_option("--trace", options->trace, "Write a Chrome trace of a few steps, for ui.perfetto.dev")
      ->type_name("FILE");
  verb->add_option("--trace-steps", options->trace_steps,
                   "Which steps the trace and the run folder's timeline.json show; default: up to 3 after warming up")
      ->type_name("FIRST-LAST");
  verb->add_option(
          "--dump-step", options->dump_step,
          "Write the activations and gradients of a step, by layer: dump/step-N/worker-*.safetensors of the run "
          "folder")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_flag(
      "--replan", options->replan,
      "When a worker is persistently slower than the others, move layers away from it at a checkpoint; no bit "
      "changes");
  verb->add_flag("--dry-run", *is_dry, "Print stages, memory and timeline; train and write nothing");
  verb->footer(
      "Examples:\n"
      "  lockstep train configs/quickstart.yaml\n"
      "  mpirun -n 2 lockstep train configs/quickstart.yaml --set run_dir=runs/two-ranks\n"
      "  lockstep train configs/quickstart.yaml --set checkpoint.every=50 --resume auto\n"
      "  lockstep train configs/quickstart.yaml --resume auto --change train.optimizer.lr=0.0001\n"
      "  lockstep train configs/quickstart.yaml --plan plan.yaml");
  verb->callback([options, is_dry, &command] {
    command = [options, is_dry] {
      return run_ranks(
          [&](Process& process) { return *is_dry ? dry_run(process, *options) : train(process, *options).exit_code; });
    };
  });
}

}  // namespace lockstep
