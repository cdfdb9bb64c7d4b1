// SPDX-License-Identifier: Apache-2.0
//
// Profiles for the verbs: `lockstep profile` writes one, `partition: auto` plans from one.
#pragma once

#include "runtime/profile/profile_model.hpp"
#include "runtime/session/config_source.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {

/// Of a config that leaves them to a plan: sizes that are not far from whatever it chooses.
inline constexpr int kMicroBatchesToMeasure = 4;

struct ProfilingOptions {
  std::vector<std::int64_t> rows;  ///< sizes of micro-batches, ascending; empty: rows_to_measure()
  int repeats = 100;
  double most_seconds = 1;  ///< per layer and size
  int workers = 0;  ///< that measure at once in this process; 0: as many as will train, cores and memory allowing
  bool cache = true;
  std::function<void(const ProfileProgress&)> progress;
  Log log;
};

/// The environment that a profile of this config is measured in: what foreign_environment() compares.
ProfileEnvironment profile_environment(const Config& config);

/// The model of the trainer for micro-batches of `rows` rows. Builds nothing.
ModelGraph describe_for(const Trainer& trainer, std::int64_t rows);

/// Measures layers on every kind of device that workers.devices names, links and worker speeds. `trainer`: of this
/// config or of one_worker() of it; `config`: as it will train. Collective: every rank calls it and gets the same
/// profile. Throws LayerError, CommError.
Profile measure_profile(Process& process, const Config& config, const Trainer& trainer,
                        const ProfilingOptions& options);

/// The same for a config that nobody has looked at yet. Throws AlreadyReported for what is wrong with it.
Profile measure_profile(Process& process, const ConfigSource& source, const ProfilingOptions& options = {});

}  // namespace lockstep
