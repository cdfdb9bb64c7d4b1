// SPDX-License-Identifier: Apache-2.0
//
// What has a row of a job: a worker that runs programs, or one of those with servers.
#pragma once

#include "runtime/engine/job_outcome.hpp"

namespace lockstep {

class Row {
 public:
  virtual ~Row() = default;
  /// On a thread of its own, from the beginning of the job to its end. Throws what went wrong, with where in the
  /// message; JobStopped when another row failed first.
  virtual void run() = 0;
  /// Behind run(): what it holds.
  virtual void add_to(JobOutcome& outcome) const = 0;
};

}  // namespace lockstep
