// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/config_check.hpp"

#include <numeric>

#include "runtime/session/planning.hpp"
#include "runtime/session/prepared_job.hpp"

namespace lockstep {

std::vector<CheckFinding> check_config(Process& process, const ConfigSource& source) {
  process.together([&] {
    if (process.size() > 1) throw UserError(concat("check: got ", process.size(), " ranks, expected one process"));
  });
  const PreparedJob job = prepare_job(process, source);
  const std::vector<double> bytes = state_bytes_of_stages(job.trainer->assembly());
  return check_model(*job.trainer, std::accumulate(bytes.begin(), bytes.end(), 0.0),
                     source.registry(job.trainer->config()));
}

}  // namespace lockstep
