// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/prepared_job.hpp"

#include "runtime/session/auto_partition.hpp"
#include "runtime/training/data_record.hpp"
#include "runtime/training/environment.hpp"

namespace lockstep {
namespace {

/// The keys that --change names; with a value it is set in `source`.
ResumeRules take_changes(const PrepareOptions& options, ConfigSource& source) {
  if (!options.changes.empty() && options.resume.empty())
    throw UserError(concat("--change: got ", options.changes.front(),
                           " without --resume, expected a checkpoint to go on from; else set keys with --set"));
  ResumeRules rules;
  rules.evaluates = options.evaluates;
  rules.averaged = options.averaged;
  for (const std::string& change : options.changes) {
    const std::size_t equals = change.find('=');
    rules.changes.push_back(change.substr(0, equals));
    if (equals == std::string::npos) continue;
    if (source.config)
      throw UserError(concat("changes: got ", change, ", expected ", rules.changes.back(),
                             ": a config that the program fills in has its value already"));
    source.overrides.push_back("--change " + change);
  }
  return rules;
}

}  // namespace

PreparedJob prepare_job(Process& process, const ConfigSource& source, const PrepareOptions& options) {
  PreparedJob job;
  ResumeRules rules;
  process.together([&] {
    ConfigSource changed = source;
    rules = take_changes(options, changed);
    job.loaded = changed.load();
    job.kernels = resolve_kernels(job.loaded.config);
  });
  process.together(
      [&] { job.resume = choose_checkpoint(process, options.resume, job.loaded.config.run_dir, options.flag); });
  process.together([&] {
    if (!options.evaluates) return;
    if (job.resume.checkpoint.empty()) throw UserError(concat(options.flag, ": there is no checkpoint to evaluate"));
    job.loaded.trained = trained_on(job.resume.checkpoint);
    job.loaded.trained->inputs = options.inputs;
  });
  resolve_partition(process, source, job.loaded);
  process.together([&] {
    job.trainer = make_planned_trainer(source, job.loaded, process.ranks());
    if (options.evaluates) check_evaluation(job.trainer->assembly());  // here, where all ranks learn of it
  });
  process.together([&] {
    if (!job.resume.checkpoint.empty())
      job.trainer->resume(job.resume.checkpoint, rules);
    else
      job.trainer->find_initial_weights();
  });
  process.compare(*job.trainer);
  return job;
}

}  // namespace lockstep
