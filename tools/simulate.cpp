// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "runtime/base/text_table.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/session/plan_search.hpp"
#include "tools/command.hpp"

namespace lockstep {

void add_simulate(CLI::App& app, Command& command) {
  const auto options = std::make_shared<SimulateOptions>();
  CLI::App* verb =
      app.add_subcommand("simulate", "When each worker does what under a schedule or a plan: grid, step time, bubble");
  verb->add_option("--schedule", options->schedule,
                   concat("One of ", join(schedule_names()),
                          ", auto (the best for the given times), or file:PATH of a CSV file (default 1f1b)"));
  verb->add_option("--stages", options->stages, "All stages; workers = stages / virtual stages");
  verb->add_option("--virtual-stages", options->virtual_stages, "Stages per worker (default 1)");
  verb->add_option("--micro-batches", options->micro_batches, "Micro-batches per step");
  verb->add_option("--forward-ms", options->forward_ms, "Forward of a stage: one number, or a,b,c for each (default 1)")
      ->delimiter(',');
  verb->add_option("--backward-ms", options->backward_ms,
                   "Backward of a stage, I and W together, likewise (default: twice the forward)")
      ->delimiter(',');
  verb->add_option("--input-grad-ms", options->input_grad_ms, "I of a stage, likewise (default: the forward)")
      ->delimiter(',');
  verb->add_option("--weight-grad-ms", options->weight_grad_ms, "W of a stage, likewise (default: the forward)")
      ->delimiter(',');
  verb->add_option("--update-ms", options->update_ms, "Optimizer step of a worker (default 0)");
  verb->add_flag("--clip", options->clip, "Every update waits for the global norm, as with train.clip_grad_norm");
  const std::vector<CLI::Option*> not_with_plan = verb->get_options();
  CLI::Option* plan = verb->add_option(
      "--plan", options->plan, "A plan of lockstep plan: its schedule, costs and links, in the place of all the above");
  verb->add_option("--csv", options->csv, "Write the schedule to this file, as torch.distributed.pipelining does");
  verb->add_option("--html", options->html, "Write a page with the timeline, to zoom and point at");
  verb->add_option("--trace", options->trace, "Write a Chrome trace, for ui.perfetto.dev");
  options->width = std::max(40, columns_of_terminal(STDOUT_FILENO, options->width));
  verb->add_option("--width", options->width, "Columns of the grid (default: the terminal's, else 120)");
  verb->footer(
      "Example:\n  lockstep simulate --schedule 1f1b --stages 4 --micro-batches 8 --forward-ms 10,12,12,9 --csv "
      "my.csv\n"
      "  lockstep simulate --schedule file:my.csv\n"
      "  lockstep simulate --schedule zbv --stages 8 --virtual-stages 2 --micro-batches 8\n"
      "  lockstep simulate --schedule auto --stages 4 --micro-batches 12 --forward-ms 20 --input-grad-ms 30 "
      "--weight-grad-ms 20\n"
      "  lockstep simulate --plan plan.yaml --html plan.html");
  verb->callback([options, &command, not_with_plan, plan] {
    for (const CLI::Option* other : not_with_plan)
      if (plan->count() > 0 && other->count() > 0) throw CLI::ExcludesError(other->get_name(), plan->get_name());
    command = [options] { return simulate_command(*options, std::cout, subject_of_plan); };
  });
}

}  // namespace lockstep
