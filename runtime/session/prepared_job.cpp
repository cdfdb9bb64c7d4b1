// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/prepared_job.hpp"

#include "runtime/session/planning.hpp"
#include "runtime/training/environment.hpp"

namespace lockstep {

PreparedJob prepare_job(Process& process, const ConfigSource& source, const std::string& resume,
                        const std::function<void(Config&)>& adjust) {
  PreparedJob job;
  process.together([&] {
    job.loaded = source.load();
    if (adjust) adjust(job.loaded.config);
    job.kernels = resolve_kernels(job.loaded.config);
  });
  process.together([&] { job.resume = choose_checkpoint(process, resume, job.loaded.config.run_dir); });
  resolve_partition(process, source, job.loaded);
  process.together([&] { job.trainer = make_trainer(source, job.loaded, process.ranks()); });
  process.together([&] {
    if (!job.resume.checkpoint.empty()) job.trainer->resume(job.resume.checkpoint);
  });
  process.compare(*job.trainer);
  return job;
}

}  // namespace lockstep
