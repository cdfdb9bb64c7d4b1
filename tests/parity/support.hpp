// SPDX-License-Identifier: Apache-2.0
//
// What the parity tests share: small models, data made from a seed, configs, and "train this and compare".
#pragma once

#include <string>

#include "models/registry.hpp"
#include "runtime/training/run_record.hpp"
#include "runtime/training/trainer.hpp"
#include "tests/temporary_folder.hpp"

namespace lockstep::test {

/// Samples drawn once from a seed. Regression: x [rows, inputs], targets [rows, outputs]; tokens: both [rows, length].
DataSplits regression_data(std::int64_t samples, std::int64_t inputs, std::int64_t outputs);
/// Some targets are ignored (-100), in some samples all of them.
DataSplits token_data(std::int64_t samples, std::int64_t length, std::int64_t vocab);

/// x [rows, channels, size, size]; targets: a class per sample, or with `segmentation` per pixel, some of them ignored.
DataSplits image_data(std::int64_t samples, std::int64_t channels, std::int64_t size, std::int64_t classes,
                      bool segmentation);

/// fc, act, dropout blocks with a skip connection from the first block to before the last layer.
Model mlp_with_skip(double dropout, bool skip);
Model small_gpt(int layers, double dropout, bool tied);
/// A family of the registry: "type: cnn, inputs: 3, ...".
Model model_of(const std::string& keys);

/// AdamW with clipping that bites, a warm-up and weight decay on matrices only; 5 steps.
Config small_config(const std::string& loss, std::int64_t batch, int micro_batches);

Config with_pipeline(Config config, int stages, const std::string& schedule, int virtual_stages = 1);

/// Trains on one worker (see one_worker).
RunRecord reference_run(const Model& model, const DataSplits& data, const Config& config);
/// Trains as configured, in process, and returns what differs from the reference, or "" when all bits are the same, and
/// so are the operations that were counted.
std::string difference(const RunRecord& reference, const Model& model, const DataSplits& data, const Config& config);

/// One job of a run that stops and goes on: from the newest checkpoint in `folder` when there is one.
RunRecord next_leg(const Model& model, const DataSplits& data, const Config& config, const std::string& folder,
                   const Ranks& ranks = {});
/// Appends what a later leg has computed.
void append(RunRecord& run, const RunRecord& leg);

}  // namespace lockstep::test
