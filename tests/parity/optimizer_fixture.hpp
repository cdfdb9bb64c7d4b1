// SPDX-License-Identifier: Apache-2.0
//
// What the tests of optimizers share: a config with one, and a tensor of a checkpoint.
#pragma once

#include <ATen/ATen.h>

#include "tests/parity/resume_fixture.hpp"

namespace lockstep::test {

/// With clipping that bites, so that updates are corrected with post_validation.
inline Config with_optimizer(const std::string& keys, const std::string& more = "") {
  Config config = small_config("mean_squared_error", 8, 3);
  const Config read = read_config(load_config_text(concat("model: {type: a}\ndata: {type: b}\ntrain: {steps: 5, batch: "
                                                          "8, loss: mean_squared_error, optimizer: {lr: 0.01, ",
                                                          keys, "}", more, "}"),
                                                   "job.yaml"));
  config.train.optimizer = read.train.optimizer;
  config.train.ema = read.train.ema;
  return config;
}

/// Stopped after two steps, in one cut, and gone on with in another.
inline std::string broken_difference(const RunRecord& unbroken, const Model& model, const DataSplits& data,
                                     Config config) {
  const TemporaryFolder folder;
  config.checkpoint.every = "1";
  Config first = with_pipeline(config, 3, "1f1b");
  first.train.stop_after = 2;
  RunRecord run = next_leg(model, data, first, folder.path());
  append(run, next_leg(model, data, with_pipeline(config, 2, "gpipe"), folder.path()));
  return first_difference(unbroken, run, Trainer(model, data, config).graph()).value_or("");
}

inline at::Tensor saved(const std::string& checkpoint, TensorKind kind, const std::string& name) {
  CheckpointStore store(checkpoint);
  at::Tensor tensor = at::empty(store.entry(kind, name).sizes, at::kFloat);
  store.read(kind, name, tensor);
  return tensor;
}

}  // namespace lockstep::test
