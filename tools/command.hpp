// SPDX-License-Identifier: Apache-2.0
//
// The verbs of the `lockstep` command. Each is one file: add_VERB() declares its flags and sets `command`, which main
// calls after parsing and whose result is the exit code.
#pragma once

#include <functional>

#include "runtime/session/config_source.hpp"

namespace CLI {
class App;
}

namespace lockstep {

using Command = std::function<int()>;

void add_train(CLI::App& app, Command& command);
void add_verify(CLI::App& app, Command& command);
void add_profile(CLI::App& app, Command& command);
void add_plan(CLI::App& app, Command& command);
void add_simulate(CLI::App& app, Command& command);
void add_report(CLI::App& app, Command& command);
void add_checkpoint(CLI::App& app, Command& command);
void add_export(CLI::App& app, Command& command);
void add_eval(CLI::App& app, Command& command);
void add_predict(CLI::App& app, Command& command);
void add_check(CLI::App& app, Command& command);
void add_list(CLI::App& app, Command& command);
void add_launch(CLI::App& app, Command& command);
void add_why(CLI::App& app, Command& command);
void add_doctor(CLI::App& app, Command& command);
void add_data(CLI::App& app, Command& command);

/// The config, and `--set`.
void add_config_flags(CLI::App& verb, ConfigSource& source);
void add_plan_flag(CLI::App& verb, ConfigSource& source);
/// As --set KEY='TEXT' does, whatever is in the text.
void set_text(ConfigSource& source, const std::string& key, const std::string& text);

}  // namespace lockstep
