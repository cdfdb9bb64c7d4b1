// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "tools/command.hpp"

namespace lockstep {

void add_config_flags(CLI::App& verb, ConfigSource& source) {
  verb.add_option("config", source.path, "YAML file; configs/reference.yaml explains every key")->required();
  verb.add_option("--set", source.overrides, "Override a key: --set train.steps=10 (repeatable)")
      ->take_all()
      ->type_name("KEY=VALUE");
}

void set_text(ConfigSource& source, const std::string& key, const std::string& text) {
  std::string quoted;
  for (const char c : text) quoted += c == '\'' ? std::string("''") : std::string(1, c);
  source.overrides.push_back(concat(key, "='", quoted, "'"));
}

void add_plan_flag(CLI::App& verb, ConfigSource& source) {
  verb.add_option("--plan", source.plan, "A plan of lockstep plan: its pipeline takes the place of the config's")
      ->type_name("FILE");
}

}  // namespace lockstep
