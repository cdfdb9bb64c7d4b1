// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "runtime/session/checkup.hpp"
#include "tools/command.hpp"

namespace lockstep {

void add_doctor(CLI::App& app, Command& command) {
  CLI::App* verb =
      app.add_subcommand("doctor", "Look at this machine: MPI, torch, cores, memory, run folder; say what to do");
  auto folder = std::make_shared<std::string>("runs");
  auto probe = std::make_shared<bool>(false);
  verb->add_option("run_folder", *folder, "Where jobs will write")->capture_default_str();
  verb->add_flag("--probe", *probe, "Only say how large the MPI world is")->group("");
  verb->footer(
      "Exit code: 0, or 1 when something is bad.\n"
      "Examples:\n"
      "  lockstep doctor /scratch/me/runs\n"
      "  mpirun -n 2 lockstep doctor /scratch/me/runs");
  verb->callback([folder, probe, &command] { command = [folder, probe] { return check_up(*folder, *probe); }; });
}

}  // namespace lockstep
