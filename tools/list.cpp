// SPDX-License-Identifier: Apache-2.0
//
// `lockstep list`: what the config's names can be.
#include <CLI/CLI.hpp>
#include <iomanip>
#include <iostream>

#include "models/registry.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/training/losses.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

void print(const std::string& name, const std::string& summary) {
  std::cout << "  " << std::left << std::setw(34) << name << summary << "\n";
}

int list(const std::string& what) {
  const bool all = what.empty();
  if (all || what == "models") {
    std::cout << "models (model.type)\n";
    for (const ModelFamily& family : model_families()) print(family.type, family.summary);
  }
  if (all || what == "schedules") {
    std::cout << "schedules (pipeline.schedule)\n";
    for (const ScheduleGenerator& generator : schedule_generators()) {
      print(generator.name, concat(generator.summary, " (virtual_stages ", generator.virtual_stages.text(), ")"));
    }
    print("auto", "the best of these, and of schedules made for the costs of the stages, by simulation");
    print("file:PATH", "a CSV file, as torch.distributed.pipelining writes it");
  }
  if (all || what == "losses") {
    std::cout << "losses (train.loss)\n";
    for (const LossKind& kind : loss_kinds()) print(kind.name, kind.summary);
  }
  if (all || what == "readers") {
    std::cout << "readers (data.type)\n";
    for (const DataReader& reader : data_readers()) print(reader.type, reader.summary);
  }
  return 0;
}

}  // namespace

void add_list(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("list", "List models, schedules, losses and data readers");
  auto what = std::make_shared<std::string>();
  verb->add_option("what", *what, "models, schedules, losses or readers; default: all")
      ->check(CLI::IsMember({"models", "schedules", "losses", "readers"}));
  verb->footer("Example: lockstep list schedules");
  verb->callback([&command, what] { command = [what] { return list(*what); }; });
}

}  // namespace lockstep
