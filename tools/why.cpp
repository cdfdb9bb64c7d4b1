// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <iostream>

#include "runtime/session/launch_job.hpp"
#include "tools/command.hpp"

namespace lockstep {

void add_why(CLI::App& app, Command& command) {
  CLI::App* verb =
      app.add_subcommand("why", "Say what happened to a run: who died first, doing what, who waited for whom");
  auto folder = std::make_shared<std::string>();
  verb->add_option("run_folder", *folder, "run_dir of the job; of a running one: what each worker does now")
      ->required();
  verb->footer("Example:\n  lockstep why runs/quickstart");
  verb->callback([folder, &command] {
    command = [folder] {
      std::cout << story_text(story_of(*folder), *folder) << std::flush;
      return 0;
    };
  });
}

}  // namespace lockstep
