// SPDX-License-Identifier: Apache-2.0
//
// `lockstep list`: what the config's names can be.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iomanip>
#include <iostream>

#include "runtime/base/text_table.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/session/plugins.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

void print(const std::string& name, const std::string& summary) {
  std::cout << "  " << std::left << std::setw(34) << name << summary << "\n";
}

template <typename T>
void print(const std::string& title, const Table<T>& table) {
  std::cout << title << "\n";
  for (const T& entry : table.entries()) print(entry.name, entry.summary);
}

/// What follows a name and its line, within the width of the terminal.
void print_keys(const std::vector<std::string>& keys) {
  const auto columns = static_cast<std::size_t>(columns_of_terminal(STDOUT_FILENO, 80));
  const std::string indent = "    ";
  std::string line;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const std::string item = keys[i] + (i + 1 < keys.size() ? "," : "");
    if (!line.empty() && line.size() + 1 + item.size() > columns) {
      std::cout << line << "\n";
      line.clear();
    }
    line += (line.empty() ? indent : " ") + item;
  }
  if (!line.empty()) std::cout << line << "\n";
}

void print_layers(const Table<LayerKind>& layers) {
  std::cout << "layers (model.layers[].type)\n";
  for (const LayerKind& kind : layers.entries()) {
    print(kind.name, kind.summary);
    print_keys(kind.keys);
  }
}

int list(const std::string& what, const std::vector<std::string>& plugins) {
  const bool all = what.empty();
  Registry registry;
  load_plugins(plugins, Section(), registry);
  if (all || what == "models") print("models (model.type)", registry.models);
  if (all || what == "layers") print_layers(layers_of(registry));
  if (all || what == "activations") print("activations (model.activation)", registry.activations);
  if (all || what == "schedules") {
    std::cout << "schedules (pipeline.schedule)\n";
    for (const ScheduleGenerator& generator : schedule_generators()) {
      print(generator.name, concat(generator.summary, " (virtual_stages ", generator.virtual_stages.text(), ")"));
    }
    print("auto", "the best of these, and of schedules made for the costs of the stages, by simulation");
    print("file:PATH", "a CSV file, as torch.distributed.pipelining writes it");
  }
  if (all || what == "losses") print("losses (train.loss)", registry.losses);
  if (all || what == "metrics") print("metrics (train.metrics)", registry.metrics);
  if (all || what == "optimizers") print("optimizers (train.optimizer.type)", registry.optimizers);
  if (all || what == "lr_schedules") print("lr_schedules (train.lr_schedule.type)", registry.lr_schedules);
  if (all || what == "readers") print("readers (data.type)", registry.readers);
  return 0;
}

}  // namespace

void add_list(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("list", "List what the names of a config can be");
  auto what = std::make_shared<std::string>();
  auto plugins = std::make_shared<std::vector<std::string>>();
  verb->add_option(
          "what", *what,
          "models, layers, activations, schedules, losses, metrics, optimizers, lr_schedules or readers; default: all")
      ->check(CLI::IsMember({"models", "layers", "activations", "schedules", "losses", "metrics", "optimizers",
                             "lr_schedules", "readers"}));
  verb->add_option("--plugin", *plugins, "Also what this shared library has (repeatable)")->type_name("FILE");
  verb->footer("Example: lockstep list schedules");
  verb->callback([&command, what, plugins] { command = [what, plugins] { return list(*what, *plugins); }; });
}

}  // namespace lockstep
