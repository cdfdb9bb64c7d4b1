// SPDX-License-Identifier: Apache-2.0
//
// From a config file to a plan, a training run, an evaluation and a page with its timeline, on as many ranks as it was
// started with. docs/cpp_api.md walks through it.
//
//   from_config CONFIG RUN_FOLDER                    e.g. configs/quickstart.yaml runs/from_config
//   mpirun -n 2 from_config CONFIG RUN_FOLDER
#include <iostream>

#include "runtime/base/output_file.hpp"
#include "runtime/observe/page.hpp"
#include "runtime/session/evaluation.hpp"
#include "runtime/session/plan_search.hpp"
#include "runtime/session/profiling.hpp"
#include "runtime/session/train_run.hpp"

using namespace lockstep;

int from_config(Process& process, const std::string& config, const std::string& run_folder) {
  ConfigSource source{config};
  source.overrides = {"run_dir=" + run_folder, "checkpoint.every=50"};

  // What layers and links cost here, and the best plan for two workers.
  const Profile profile = measure_profile(process, source);
  PlanOptions two;
  two.workers = 2;
  two.all_workers = true;  // every rank needs one
  const std::string table = take_plan(process, source, profile, two);
  if (process.is_root()) std::cout << table << std::flush;

  TrainOptions training;
  training.source = source;
  const TrainResult trained = train(process, training);
  if (trained.exit_code != 0) return trained.exit_code;

  const Evaluation found = evaluate(process, source, trained.checkpoint);
  if (!found.not_finite.empty()) throw Error(found.not_finite);
  if (!process.is_root()) return 0;
  std::cout << "step " << trained.step << "  loss " << trained.loss << "  eval loss " << found.loss << "\n";
  if (trained.timeline) write_whole_file(run_folder + "/timeline.html", html_page(*trained.timeline, {}));
  return 0;
}

int main(int count, char** arguments) {
  return run_ranks([&](Process& process) {
    if (count != 3) throw UserError("usage: from_config CONFIG RUN_FOLDER");
    return from_config(process, arguments[1], arguments[2]);
  });
}
