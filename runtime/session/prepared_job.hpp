// SPDX-License-Identifier: Apache-2.0
//
// What every verb that runs a model does first.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"
#include "runtime/session/resume_point.hpp"

namespace lockstep {

/// A job that all ranks have checked and agreed on. It has no links yet: Process::connect().
struct PreparedJob {
  LoadedConfig loaded;
  std::string kernels;  ///< which kernels are used: a line for the log
  ResumePoint resume;
  std::unique_ptr<Trainer> trainer;  ///< resumed, if `resume` has a checkpoint
};

struct PrepareOptions {
  std::string resume = {};                ///< as choose_checkpoint()
  std::string flag = "--resume";          ///< what names it, for messages
  bool evaluates = false;                 ///< as ResumeRules
  bool averaged = false;                  ///< as ResumeRules
  std::optional<InputFile> inputs = {};   ///< with evaluates: to be answered, instead of the evaluation set
  std::vector<std::string> changes = {};  ///< of --change: "KEY=VALUE" sets the key as --set does; or "KEY"
};

/// Config, plan and partition, model and data, checkpoint. Collective. Throws AlreadyReported for what is wrong with
/// any of them, on all ranks.
PreparedJob prepare_job(Process& process, const ConfigSource& source, const PrepareOptions& options = {});

}  // namespace lockstep
