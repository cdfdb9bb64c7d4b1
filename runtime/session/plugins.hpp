// SPDX-License-Identifier: Apache-2.0
//
// Everything that a config names, ours and that of plug-ins: `plugins: [./libmine.so]`.
//
//   #include "runtime/session/plugins.hpp"
//   void add_mine(lockstep::Registry& registry) {
//     registry.models.add({"mine", "what it is, in a line", make_mine});
//     registry.losses.add({"log_cosh", "what it is, in a line", [] { return std::make_unique<Mine>(); }});
//   }
//   LOCKSTEP_PLUGIN(add_mine)
//
// The function may be called several times in a process, each time on tables of its own. From C++ the same function
// goes into ConfigSource::extend, or the parts are handed to make_model(), open_data() and assemble(). What a plug-in
// adds keeps the contract of ours: ModelFamily, LayerKind, ActivationKind, DataReader, Loss, Metric, UpdateRule,
// LrScheduleKind.
#pragma once

#include "models/registry.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/layer/stamp.hpp"
#include "runtime/training/assembly.hpp"

namespace lockstep {

/// All that a config names: also layers and activations, and losses, metrics, optimizers and learning-rate schedules.
struct Registry : ModelTables, TrainTables {
  Table<ModelFamily> models = model_families();
  Table<DataReader> readers = data_readers();
};

/// Adds what the libraries have. `section`: has the key `plugins`. ConfigError when one cannot be loaded, is no
/// plug-in, has another stamp, or a name that is taken.
void load_plugins(const std::vector<std::string>& paths, const Section& section, Registry& registry);

}  // namespace lockstep

/// Once per library, outside every namespace: `add` is a function of a Registry&.
#define LOCKSTEP_PLUGIN(add)                                        \
  LOCKSTEP_EXPORT_STAMP                                             \
  extern "C" void lockstep_plugin(::lockstep::Registry& registry) { \
    add(registry);                                                  \
  }
