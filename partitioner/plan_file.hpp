// SPDX-License-Identifier: Apache-2.0
//
// plan.yaml: how a model is cut, placed and run, for people to read and edit, and what that was predicted to cost.
//
// `pipeline` has the config's own keys, and takes the place of the config's section: read_config() reads it, with the
// plan's file and lines in its errors. Whoever edits it (or overrides it) is believed; the prediction is then of
// something else (see prediction_key()), and is made again from `profile`. Torch-free.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "partitioner/problem.hpp"
#include "runtime/config/config.hpp"
#include "runtime/schedule/plan_prediction.hpp"

namespace lockstep {

struct PlanFile {
  std::string config;                  ///< path that it was made from
  std::string model;                   ///< name of the config
  int layers = 0;                      ///< of the model
  std::string signature;               ///< of the model's layers, as the profile knows them
  std::int64_t batch = 0;              ///< that it was made for
  int micro_batches = 0;               ///< takes the place of train.micro_batches: auto
  int gradient_groups = 1;             ///< that it was made for
  int replicas = 1;                    ///< as planned, and so is `choice`. What counts once they have been read are the
  PlanChoice choice;                   ///< sections `replicas` and `pipeline`
  std::string recompute_text;          ///< pipeline.recompute
  std::vector<PlannedWorker> workers;  ///< that are used
  std::vector<int> idle;               ///< workers that there were and that are better left out, as they were numbered
  std::string key;                     ///< prediction_key() of what was predicted
  int predicted_micro_batches = 0;     ///< that it was predicted with
  std::optional<PlanPrediction> predicted;
  std::string profile;  ///< YAML: what layers and links cost (partitioner/profile_file.hpp); empty: not known
  Section root, pipeline, train, replicas_section;  ///< as read
};

/// Of several replicas: how the workers of the choice follow one another (config: replicas.placement), and the
/// placement of one of them (pipeline.placement).
ReplicaPlacement placement_of_replicas(const PlanChoice& choice, int replicas);
std::vector<int> placement_of_one(const PlanChoice& choice, int replicas);

/// A text of all that a prediction depends on: the pipeline, what changes costs, and the workers. Another key: another
/// prediction.
std::string prediction_key(const Config& config, const std::vector<PlannedWorker>& workers);

/// Whether any of them is on another device than the host.
bool uses_devices(const std::vector<PlannedWorker>& workers);

std::string to_yaml(const PlanFile& plan);
/// Everything but the values of `pipeline`. Throws ConfigError for what is not a plan: another format, unknown keys.
PlanFile read_plan(const Section& root);

/// "41 of 64 workers: 39000.00 ms a step; with all 64: 39600.00 ms"; empty when none is idle or nothing is predicted.
std::string idle_text(const PlanFile& plan);

/// "1f1b", "zbv x 2": the schedule, and how many stages a worker has.
std::string schedule_text(const PlanChoice& choice);

}  // namespace lockstep
