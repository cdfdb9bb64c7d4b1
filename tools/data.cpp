// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "runtime/base/text_table.hpp"
#include "runtime/session/config_source.hpp"
#include "runtime/training/data_look.hpp"
#include "tools/command.hpp"

namespace lockstep {

void add_data(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("data", "Look at the data of a config: sets, ranges, classes, samples");
  auto source = std::make_shared<ConfigSource>();
  auto look = std::make_shared<DataLook>();
  add_config_flags(*verb, *source);
  verb->add_option("--samples", look->samples, "How many samples to show")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->type_name("N");
  verb->add_option("--scan", look->scan, "Samples of each set that ranges, classes and duplicates are found in")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->type_name("N");
  verb->add_option("--step", look->step, "Only which samples this optimizer step has, by micro-batch")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->footer(
      "Examples:\n"
      "  lockstep data configs/mlp-csv.yaml\n"
      "  lockstep data configs/mlp-csv.yaml --step 12");
  verb->callback([source, look, &command] {
    command = [source, look] {
      look->columns = columns_of_terminal(STDOUT_FILENO);
      const Config config = source->load(1).config;
      const DataSplits data = source->open_data(config, {}, source->registry(config));
      std::cout << look_at_data(config, data, *look) << std::flush;
      return 0;
    };
  });
}

}  // namespace lockstep
