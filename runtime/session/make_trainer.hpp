// SPDX-License-Identifier: Apache-2.0
//
// From a config to a trainer that has been checked and has built nothing.
#pragma once

#include <memory>
#include <string>

#include "runtime/session/config_source.hpp"
#include "runtime/training/trainer.hpp"

namespace lockstep {

/// Config, model, data, checked against each other. Nothing is built. `trained`: DataContext's. Throws UserError.
std::unique_ptr<Trainer> make_trainer(const ConfigSource& source, const Config& config, const Ranks& ranks,
                                      const std::optional<TrainedOn>& trained = {});
/// On one worker of the host, whatever the pipeline says: every layer in its place, to be described and measured.
std::unique_ptr<Trainer> make_whole(const ConfigSource& source, const Config& config,
                                    const std::optional<TrainedOn>& trained = {});

/// Stages, layers, parameters, ranks: a table that fits the terminal.
std::string stage_table(const Trainer& trainer);

}  // namespace lockstep
