// SPDX-License-Identifier: Apache-2.0
//
// `--resume auto | DIR`: which checkpoint a job goes on from, agreed on by all ranks.
#pragma once

#include <string>
#include <vector>

#include "runtime/session/process.hpp"

namespace lockstep {

struct ResumePoint {
  std::string checkpoint;            ///< empty: from the beginning
  bool reuses_folder = false;        ///< the run folder is the one that the checkpoint lies in
  std::vector<std::string> skipped;  ///< auto: newer checkpoints that are damaged
};

/// `resume`: auto (the newest good checkpoint of the run folder; the beginning when it never had one), a checkpoint
/// folder, or empty (do not resume). The ranks read all of it, each a part. Throws UserError on rank 0 alone: call it
/// through Process::together. Collective.
ResumePoint choose_checkpoint(Process& process, const std::string& resume, const std::string& run_dir);

}  // namespace lockstep
