// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <iostream>

#include "runtime/session/prediction.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

struct PredictFlags {
  ConfigSource source;
  PredictRequest request;
};

int predict_file(const PredictFlags& flags) {
  return run_ranks([&](Process& process) {
    const Predicted predicted = predict(process, flags.source, flags.request);
    if (!predicted.not_finite.empty()) {
      if (process.is_root()) std::cerr << "lockstep: " << predicted.not_finite << std::endl;
      return static_cast<int>(ExitCode::fault);
    }
    if (process.is_root() && flags.request.output != "-")
      std::cerr << "lockstep: " << predicted.samples << " answers in " << flags.request.output << std::endl;
    return 0;
  });
}

}  // namespace

void add_predict(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("predict", "Answers of a checkpoint for a file of inputs");
  auto flags = std::make_shared<PredictFlags>();
  PredictRequest& request = flags->request;
  add_config_flags(*verb, flags->source);
  add_plan_flag(*verb, flags->source);
  verb->add_option("--checkpoint", request.checkpoint, "The folder of a checkpoint")->required()->type_name("DIR");
  verb->add_option("--input", request.input.path,
                   "What to answer, as data.type reads it, without targets; -: standard input")
      ->required()
      ->type_name("FILE");
  verb->add_option("--output", request.output, "Where the answers go; -: standard output")
      ->type_name("FILE")
      ->capture_default_str();
  verb->add_option("--format", request.format, "Of the answers; auto: by the end of --output, else csv")
      ->check(CLI::IsMember({"auto", "csv", "jsonl", "safetensors"}))
      ->capture_default_str();
  verb->add_option("--input-format", request.input.format, "Of a table; auto: by its first bytes and its name")
      ->check(CLI::IsMember({"auto", "csv", "parquet", "arrow", "jsonl"}))
      ->capture_default_str();
  verb->add_option("--keep", request.input.keep, "Columns of the input to write in front of the answers; '*': all")
      ->type_name("COLUMN")
      ->delimiter(',');
  verb->add_flag("--probabilities", request.answers.all, "Of every class, not of the predicted one alone");
  verb->add_option("--batch", request.answers.batch, "Samples at a time, about; 0: as many as an evaluation has")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40))
      ->type_name("N")
      ->capture_default_str();
  verb->add_flag("--ema", request.averaged, "With the averages of its weights (train.ema) in their place");
  verb->footer(
      "Example:\n  lockstep predict configs/table.yaml --checkpoint runs/table/checkpoints/step-00000100 --input "
      "new.csv");
  verb->callback([flags, &command] { command = [flags] { return predict_file(*flags); }; });
}

}  // namespace lockstep
