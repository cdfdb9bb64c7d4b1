// SPDX-License-Identifier: Apache-2.0
//
// What a model's layers, the links and the workers cost, measured or written by hand: profile.json. JSON is YAML, so a
// profile is read as a config file is, with file:line:column in every error, and people may write one in YAML:
//
//   format: 1
//   layers:                 # by name or pattern (shell wildcards); the first that matches
//     h.*: {forward_ms: 10, input_grad_ms: 10, weight_grad_ms: 10, held_mib: 20}
//   links: {same_host: {latency_us: 10, gigabytes_per_s: 10}, other_host: {...}, same_rank: {...}}
//   workers: [{speed: 1.0}, {speed: 0.5}]
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/config/section.hpp"
#include "runtime/schedule/simulate.hpp"

namespace lockstep {

/// One layer and one micro-batch of a number of rows: medians over the repeats. What each field means: LayerCost in
/// partitioner/problem.hpp.
struct LayerSample {
  std::int64_t rows = 0;
  double forward_us = 0, input_grad_us = 0, weight_grad_us = 0, update_us = 0;
  double held_bytes = 0, again_held_bytes = 0, held_w_bytes = 0, step_bytes = 0;
  double forward_extra_bytes = 0, input_grad_extra_bytes = 0, weight_grad_extra_bytes = 0;
  double spread = 0;  ///< of F + I + W: (third quartile - first) / median
};

struct LayerProfile {
  std::string name;       ///< of the layer in the model; of a hand-written one a pattern
  std::string signature;  ///< type, options, shapes, dtypes: layers with the same one are measured once. Empty: by hand
  std::vector<LayerSample> samples;  ///< by rows, ascending; two as measured
  double misfit = 0;  ///< how far a third size, in between, is from the line through the two; 0: not looked at
};

struct ProfiledWorker {
  double speed = 1;  ///< in a piece of work that every rank does, against rank 0
  WorkerPlace place;
};

struct Profile {
  std::string model;                                            ///< of the config it was made from
  std::vector<std::pair<std::string, std::string>> environment;  ///< ISA, GEMM path, threads, precision, torch: as in runs
  std::vector<LayerProfile> layers;
  Links links;
  std::vector<ProfiledWorker> workers;  ///< by rank that measured; empty: not known
};

/// Between and beyond the samples along the line through them; never below 0.
LayerSample sample_at(const LayerProfile& layer, double rows);

std::string to_json(const Profile& profile);
/// Throws ConfigError for everything that is not a profile: another format, unknown keys, negative or missing numbers.
Profile read_profile(const Section& root);

}  // namespace lockstep
