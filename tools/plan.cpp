// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iomanip>
#include <iostream>

#include "runtime/base/output_file.hpp"
#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/base/text_table.hpp"
#include "runtime/observe/page.hpp"
#include "runtime/session/plan_search.hpp"
#include "runtime/session/plan_table.hpp"
#include "runtime/session/process.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

struct PlanFlags : PlanOptions {
  ConfigSource source;
  std::string profile, costs, output, html;
};

std::string cut_to_width(const std::string& line) {
  const auto columns = static_cast<std::size_t>(columns_of_terminal(STDOUT_FILENO));
  return line.size() <= columns ? line : line.substr(0, columns - 2) + "..";
}

std::string why_it_lost(const FoundPlan& found, const FoundPlan& best) {
  if (!found.plan->fits || found.searched == best.searched) return found.plan->why;
  const Simulation &a = found.plan->simulated, &b = best.plan->simulated;
  return concat("step ", percent_text(b.period_us > 0 ? a.period_us / b.period_us - 1 : 0), " longer: bubble ",
                percent_text(a.bubble_steady), " against ", percent_text(b.bubble_steady));
}

void print_runners_up(const std::vector<FoundPlan>& found) {
  constexpr std::size_t most = 8;
  if (found.size() < 2) return;
  const auto micro_batches = [](const FoundPlan& plan) { return plan.searched->problem.replicas.micro_batches; };
  const auto replicas = [](const FoundPlan& plan) { return plan.searched->problem.replicas.count; };
  const bool many = std::any_of(found.begin(), found.end(), [&](const FoundPlan& other) {
    return micro_batches(other) != micro_batches(found.front());
  });
  const bool several = std::any_of(found.begin(), found.end(),
                                   [&](const FoundPlan& other) { return replicas(other) != replicas(found.front()); });
  std::cout << "\nrunners-up:\n";
  for (std::size_t i = 1; i < std::min(found.size(), most + 1); ++i) {
    const RankedPlan& plan = *found[i].plan;
    std::ostringstream line;
    line << "  " << std::left << std::setw(22) << schedule_text(plan.choice) << std::setw(12)
         << to_string(plan.choice.recompute);
    if (several) line << replicas(found[i]) << (replicas(found[i]) == 1 ? " replica   " : " replicas  ");
    if (many) line << "M " << std::setw(5) << micro_batches(found[i]);
    line << std::right << std::fixed << std::setprecision(2) << std::setw(10) << plan.simulated.period_us * 1e-3
         << " ms  " << why_it_lost(found[i], found[0]);
    std::cout << cut_to_width(line.str()) << "\n";
  }
  if (found.size() > most + 1) std::cout << "  and " << found.size() - most - 1 << " more\n";
}

void print_replicas(const PlanSearch& search) {
  if (search.by_replicas.size() < 2) return;
  std::cout << "\nnumbers of replicas, each with the best plan of it:\n";
  for (const FoundPlan& found : search.by_replicas) {
    const PlanProblem& problem = found.searched->problem;
    const RankedPlan& plan = *found.plan;
    const int count = problem.replicas.count, workers = rows_of(problem, plan.choice) / count;
    std::ostringstream line;
    line << "  " << std::left << std::setw(22) << concat(count, " x ", workers, workers == 1 ? " worker" : " workers")
         << std::right << std::fixed << std::setprecision(2) << std::setw(10) << plan.simulated.period_us * 1e-3
         << " ms, at most "
         << size_text(*std::max_element(plan.simulated.total_bytes.begin(), plan.simulated.total_bytes.end()));
    if (problem.replicas.groups > search.best.gradient_groups)
      line << "; train.gradient_groups=" << problem.replicas.groups << ": other bits";
    std::cout << cut_to_width(line.str()) << "\n";
  }
}

void print_search(const std::list<Searched>& all) {
  long simulations = 0;
  bool exact = true, exact_workers = true;
  for (const Searched& searched : all) {
    simulations += searched.result.simulations;
    exact = exact && searched.result.exact;
    exact_workers = exact_workers && searched.result.exact_workers;
  }
  std::cout << "\n"
            << simulations << (simulations == 1 ? " plan was" : " plans were") << " simulated; "
            << (!exact ? "the search ended before all were tried: a better one is possible"
                : exact_workers
                    ? "none that was left out is faster"
                    : "none of as many workers that was left out is faster, and not every number of workers was tried")
            << "\n";
}

void plan(const PlanFlags& flags) {
  for (const auto& [flag, file] : {std::pair("-o", flags.output), {"--html", flags.html}})
    if (!file.empty()) check_writable(flag, file);
  Profile profile = load_profile(flags.profile);
  if (!flags.costs.empty()) profile = overlaid(std::move(profile), load_profile(flags.costs));
  const PlanSearch search = find_plan(flags.source, profile, flags);
  const PlanFile& best = search.best;
  std::cout << best.model << ", " << best.layers << " layers: " << plan_table(best);
  print_replicas(search);
  print_runners_up(search.ranked);
  print_search(search.all);
  for (const std::string& warning : search.warnings) std::cout << "warning: " << warning << "\n";
  if (!flags.html.empty()) {
    write_whole_file(flags.html, html_page(simulated_timeline(search, best.model), {}));
    std::cout << "page written to " << flags.html << "\n";
  }
  if (flags.output.empty()) return;
  write_whole_file(flags.output, to_yaml(best));
  std::cout << "written to " << flags.output << "; lockstep train " << flags.source.path << " --plan " << flags.output
            << (search.sets_micro_batches ? concat(" --set train.micro_batches=", best.micro_batches) : "")
            << (search.sets_groups ? concat(" --set train.gradient_groups=", best.gradient_groups) : "")
            << (search.sets_devices.empty() ? "" : concat(" --set 'workers.devices=", search.sets_devices, "'"))
            << "\n";
}

int run_plan(const PlanFlags& flags) {
  return run_ranks([&](Process& process) {
    process.together(
        [&] {
          if (process.is_root()) plan(flags);
        },
        kLongPatience);
    return 0;
  });
}

}  // namespace

void add_plan(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("plan", "Find cuts, schedule, recompute and placement for a measured model");
  auto options = std::make_shared<PlanFlags>();
  add_config_flags(*verb, options->source);
  verb->add_option("--profile", options->profile, "What the layers cost, of lockstep profile or by hand")
      ->required()
      ->type_name("FILE");
  verb->add_option("--costs", options->costs, "YAML with costs, links or workers that take the place of the profile's")
      ->type_name("FILE");
  verb->add_option("--workers", options->workers, "Workers that there are; fewer are used where that is better")
      ->check(CLI::Range(1, kMostPlannedWorkers));
  verb->add_flag("--all-workers", options->all_workers,
                 "Leave none of them idle, also where fewer are faster or need less");
  verb->add_option("--memory", options->memory,
                   "Most bytes of tensors on a worker, or on each (default: workers.memory_limit of the config)")
      ->type_name("SIZE[,SIZE...]");
  verb->add_option("--hosts", options->hosts, "Where the workers are: hosts and how many each has")
      ->type_name("NAME:N[,NAME:N...]");
  verb->add_option("--ranks", options->ranks,
                   "one: all workers of a host in one process; per-worker: a process each; or a number of processes. "
                   "Default: as the profile says, else one, with --hosts per-worker")
      ->type_name("one|per-worker|R");
  verb->add_option("--micro-batches", options->micro_batches,
                   "Numbers to choose from, or auto; part of the numerics (default: train.micro_batches)")
      ->type_name("auto|M[,M...]");
  verb->add_option("--replicas", options->replicas,
                   "Numbers to choose from, or auto (default: those that train.gradient_groups of the config allow; "
                   "more replicas need more groups, which are part of the numerics)")
      ->type_name("auto|R[,R...]");
  verb->add_option(
          "--partition", options->partition,
          "Fixes the cuts: layers per stage (3,3,2), first layers (before:h.2,h.4), or by:layers, params, time, "
          "memory or block")
      ->type_name("CUTS");
  verb->add_option("--schedule", options->schedules, "Schedules to choose from (lockstep list schedules)")
      ->delimiter(',')
      ->type_name("NAME[,NAME...]");
  verb->add_option("--virtual-stages", options->virtual_stages, "Stages per worker to choose from (default: 1,2,4)")
      ->delimiter(',')
      ->check(CLI::Range(1, kMostPlannedWorkers))
      ->type_name("V[,V...]");
  verb->add_option("--recompute", options->recomputes, "never, except_last, always: those to choose from")
      ->delimiter(',')
      ->type_name("MODE[,MODE...]");
  verb->add_option("--placement", options->placement,
                   "Fixes the worker of each row of the schedule, of one replica, such as 1,0")
      ->delimiter(',')
      ->type_name("WORKER,...");
  verb->add_option("-o,--output", options->output, "The plan, YAML, for people too; left out: only printed")
      ->type_name("FILE");
  verb->add_option("--html", options->html, "Write a page with the timeline")->type_name("FILE");
  verb->footer(
      "Searches everything that no flag fixes: what the config's own pipeline says fixes nothing. Only where recompute "
      "is a\n"
      "list of layers there, no others are run again. Leaves with code 2, and writes nothing, when nothing fits.\n"
      "Examples:\n"
      "  lockstep profile configs/quickstart.yaml -o profile.json\n"
      "  lockstep plan configs/quickstart.yaml --profile profile.json --workers 2 -o plan.yaml\n"
      "  lockstep plan configs/gpt-10b.yaml --profile gpt-10b.json --hosts a:8,b:8 --memory 16GiB -o plan.yaml");
  verb->callback([options, &command] { command = [options] { return run_plan(*options); }; });
}

}  // namespace lockstep
