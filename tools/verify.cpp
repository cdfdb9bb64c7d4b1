// SPDX-License-Identifier: Apache-2.0
//
// `lockstep verify`: trains the config as it is and on one worker, and compares every bit.
#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>

#include "models/registry.hpp"
#include "runtime/session/planning.hpp"
#include "runtime/training/run_record.hpp"

namespace lockstep {
namespace {

struct VerifyOptions {
  ConfigSource source;
  std::int64_t steps = 3;
};

std::string how(const Trainer& trainer, int ranks) {
  const PipelineConfig& pipeline = trainer.config().pipeline;
  return concat(trainer.partition().stages(), " stages, ", pipeline.schedule, ", ", trainer.micro_batches(),
                " micro-batches, ", ranks > 1 ? concat(ranks, " ranks") : std::string("in process"));
}

// Rank 0 trains again on one worker while the others wait for the verdict.
int compare(const Config& config, const Trainer& trainer, const RunRecord& tested, int ranks) {
  Trainer reference(make_model(config.model), trainer.data(), one_worker(config));
  const auto difference = first_difference(record_run(reference), tested, trainer.graph());
  if (difference) {
    std::cout << "DIFFERENT: " << how(trainer, ranks) << " against one worker: " << *difference << std::endl;
    return static_cast<int>(ExitCode::fault);
  }
  const StepResult& last = tested.results.back();
  std::cout << "identical: " << how(trainer, ranks) << " against one worker: " << last.step
            << " steps, every loss, gradient, norm and weight; last loss " << last.loss() << std::endl;
  for (const StepResult& result : tested.results)
    if (result.non_finite.found() || !std::isfinite(result.loss())) {
      std::cerr << "lockstep: but step " << result.step << " is not finite: ";
      std::cerr << (result.non_finite.found() ? describe(result.non_finite, trainer.graph()) : "its loss") << std::endl;
      return static_cast<int>(ExitCode::fault);
    }
  return 0;
}

int verify(const VerifyOptions& options) {
  Process process;
  std::unique_ptr<Trainer> trainer;
  LoadedConfig loaded;
  Config& config = loaded.config;
  process.together([&] { loaded = options.source.load(); });
  resolve_partition(process, options.source.path, loaded);
  process.together([&] {
    config.train.steps = options.steps;
    // A run that goes on after a NaN compares more.
    config.train.stop_on_nan = false;
    resolve_kernels(config);
    trainer = make_trainer(loaded, process.ranks());
  });
  process.compare(*trainer);
  try {
    process.connect(*trainer);
    RunRecord tested = record_run(*trainer);
    const std::vector<std::string> all = process.all_gather(tested.hashes_to_bytes());
    tested.hashes.clear();
    for (const std::string& bytes : all) tested.add_hashes(bytes);
    const int code = process.is_root() ? compare(config, *trainer, tested, process.size()) : 0;
    return std::stoi(process.all_gather(std::to_string(code), std::chrono::hours(24)).front());
  } catch (const Error& error) {
    process.fail(error);
  }
}

}  // namespace

void add_verify(CLI::App& app, std::function<int()>& command) {
  CLI::App* verb = app.add_subcommand("verify", "Train as configured and on one worker, and compare bit by bit");
  auto options = std::make_shared<VerifyOptions>();
  options->source.add_flags(*verb);
  options->source.add_plan_flag(*verb);
  verb->add_option("--steps", options->steps, "Optimizer steps to compare")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000'000}))
      ->capture_default_str();
  verb->footer(
      "Names the first tensor that differs and leaves with exit code 1.\n"
      "Examples:\n"
      "  lockstep verify configs/quickstart.yaml\n"
      "  mpirun -n 2 lockstep verify configs/quickstart.yaml --steps 5");
  verb->callback([options, &command] { command = [options] { return verify(*options); }; });
}

}  // namespace lockstep
