// SPDX-License-Identifier: Apache-2.0
//
// What a job is made from: a config file, a plan that is laid over it, and overrides over both; its model and data may
// be the program's own.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "partitioner/plan_file.hpp"
#include "runtime/config/config.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/layer/model.hpp"
#include "runtime/session/plugins.hpp"

namespace lockstep {

/// A config as it is run.
struct LoadedConfig {
  Config config;
  std::optional<PlanFile> plan;    ///< in it already. Without `predicted` when that is of something else
  std::vector<std::string> notes;  ///< what the user should know of the two
  /// Of an evaluation: the training set of its checkpoint, so that it need not be there.
  std::optional<TrainedOn> trained = {};
};

struct ConfigSource {
  std::string path;                         ///< a YAML file
  std::optional<Config> config = {};        ///< filled in by the program, instead of a file
  std::string plan = {};                    ///< a plan file of lockstep plan, or empty
  std::string plan_text = {};               ///< the same, as text
  std::vector<std::string> overrides = {};  ///< of the file: "train.steps=10"
  /// What the config may name besides ours and its plug-ins'; may be empty.
  std::function<void(Registry&)> extend = {};
  /// Instead of what the config's `model` and `data` name; every rank comes to the same.
  std::function<Model()> model = {};
  std::function<DataSplits()> data = {};

  /// Whether the config leaves the number of micro-batches to a plan.
  bool leaves_micro_batches() const;
  /// Throws ConfigError; also when the plan is of another model, batch or number of micro-batches. `micro_batches`:
  /// what `train.micro_batches: auto` counts as without a plan, at most the batch; 0: it is refused.
  LoadedConfig load(int micro_batches = 0) const;
  /// For this config, as it was loaded or changed.
  Registry registry(const Config& of) const;
  Model make_model(const Config& of) const { return make_model(of, registry(of)); }
  Model make_model(const Config& of, const Registry& known) const;
  DataSplits open_data(const Config& of, const std::optional<TrainedOn>& trained, const Registry& known) const;

 private:
  /// With what `model.from` stands for in its place.
  Config read(const Section& root) const;
};

}  // namespace lockstep
