// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/verification.hpp"

#include <cmath>

#include "runtime/session/make_trainer.hpp"
#include "runtime/session/prepared_job.hpp"
#include "runtime/training/not_finite.hpp"
#include "runtime/training/run_record.hpp"

namespace lockstep {
namespace {

std::string how(const Trainer& trainer, int ranks) {
  const PipelineConfig& pipeline = trainer.config().pipeline;
  return concat(stages_text(trainer.partition().topology), ", ", pipeline.schedule, ", ", trainer.micro_batches(),
                " micro-batches, ", ranks > 1 ? concat(ranks, " ranks") : std::string("in process"));
}

/// Rank 0 trains again on one worker while the others wait for the verdict.
Verdict compare(const Trainer& trainer, const TrainingOrders& orders, const RunRecord& tested, int ranks) {
  Trainer reference(assemble_again(trainer.assembly(), one_worker(trainer.config())));
  Verdict verdict;
  const std::string what = how(trainer, ranks) + " against one worker: ";
  if (const auto difference = first_difference(record_run(reference, {}, orders), tested, trainer.graph())) {
    verdict.text = concat("DIFFERENT: ", what, *difference);
    return verdict;
  }
  const StepResult& last = tested.results.back();
  verdict.identical = true;
  verdict.text =
      concat("identical: ", what, last.step, " steps, every loss, gradient, norm and weight; last loss ", last.loss());
  for (const StepResult& result : tested.results)
    if (verdict.not_finite.empty() && (result.non_finite.found() || !std::isfinite(result.loss())))
      verdict.not_finite =
          concat("step ", result.step, " is not finite: ",
                 result.non_finite.found() ? describe(result.non_finite, trainer.graph()) : std::string("its loss"));
  return verdict;
}

}  // namespace

Verdict verify(Process& process, const ConfigSource& source, std::int64_t steps) {
  TrainingOrders orders;
  orders.last_step = steps;
  orders.stop_on_nan = false;  // a run that goes on after a NaN compares more
  const PreparedJob job = prepare_job(process, source);
  if (const Config& config = job.trainer->config(); config.replicas.updates_by_shares())
    throw config.root.section("replicas")
        .error("max_staleness",
               concat("got ", config.replicas.max_staleness,
                      ": replicas that update by themselves train to other bits in each run; verify with ",
                      "--set replicas.max_staleness=0"));
  process.connect(*job.trainer);
  RunRecord tested = record_run(*job.trainer, {}, orders);
  const std::vector<std::string> all = process.all_gather(tested.hashes_to_bytes());
  tested.hashes.clear();
  for (const std::string& bytes : all) tested.add_hashes(bytes);
  Verdict verdict;
  if (process.is_root()) verdict = compare(*job.trainer, orders, tested, process.size());
  const auto told = [&](const std::string& mine) { return process.all_gather(mine, kLongPatience).front(); };
  verdict.text = told(verdict.text);
  verdict.identical = told(verdict.identical ? "1" : "") == "1";
  verdict.not_finite = told(verdict.not_finite);
  return verdict;
}

}  // namespace lockstep
