// SPDX-License-Identifier: Apache-2.0
//
// What becomes of `partition: auto` (and those by measured time or bytes) and of `--plan` before training starts.
#pragma once

#include <memory>

#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {

/// Where the partition has to be measured (PartitionConfig::needs_profile): profiles with the cache, cuts, and puts the
/// counts into the config, the same on every rank; the plan is in `loaded`. Collective. Throws AlreadyReported when
/// nothing fits, LayerError.
void resolve_partition(Process& process, const ConfigSource& source, LoadedConfig& loaded);

/// The plan as the trainer runs it: predicted again, from the costs that it carries, where it was edited. Notes say so,
/// or why not. Throws ConfigError when the plan is of another model.
void adopt_plan(const Trainer& trainer, LoadedConfig& loaded);

/// The trainer, and the plan with the cuts that will run; notes where the job is not what the plan was made for. Throws
/// ConfigError when the plan is of another model.
std::unique_ptr<Trainer> make_planned_trainer(const ConfigSource& source, LoadedConfig& loaded, const Ranks& ranks);

}  // namespace lockstep
