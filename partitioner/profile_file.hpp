// SPDX-License-Identifier: Apache-2.0
//
// What a model's layers, the links and the workers cost: profile.json. JSON is YAML, so a profile is read as a config
// file is, with file:line:column in every error. What was measured is a list under `layers`; what people write, instead
// or on top, stands under `costs`, in YAML:
//
//   format: 2
//   costs:                  # by name or pattern of layers (shell wildcards); the first that matches
//     h.*: {forward_ms: 10, input_grad_ms: 10, weight_grad_ms: 10, activation_mib: 20}    # whatever the micro-batch
//     head: {rows: 8, forward_ms: 4}                                                # of 8 rows, and grows with them
//   devices:                # by kind of device, or its type, or pattern: before those above
//     cuda: {memory: 80GiB, costs: {h.*: {forward_ms: 1, input_grad_ms: 1, weight_grad_ms: 1}}}
//   links: {same_host: {latency_us: 10, gigabytes_per_s: 10}, other_host: {...}, same_rank: {...}, to_device: {...}}
//   adding: {cpu: {gigabytes_per_s: 5}}          # of gradients, to others: what replicas do
//   workers: [{speed: 1.0, count: 8, host: 0}, {speed: 0.5, count: 8, host: 1}, {device: cuda, count: 2, host: 2}]
//
// What was measured on other devices than the host is in `layers` too, with its kind under `device`.
//
// Torch-free. docs/profiling.md is for users.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "partitioner/problem.hpp"
#include "runtime/config/section.hpp"

namespace lockstep {

/// One layer and one micro-batch of a number of rows: what it takes on average (measure.hpp).
struct LayerSample : LayerCost {
  std::int64_t rows = 0;  ///< 0: of any number of rows (written by hand)
  double spread = 0;      ///< of F + I + W: (third quartile - first) / median
  bool operator==(const LayerSample&) const = default;
};

/// Layers with one signature: measured once on each kind of device, and once in the list for each.
struct LayerProfile {
  std::string name;       ///< of the first such layer of the model
  std::string signature;  ///< of type, options, shapes, dtypes (signature_of in measure.hpp); empty: nothing measured
  std::vector<LayerSample> samples;  ///< by rows, ascending, at least one; two as measured
  double misfit = 0;  ///< how far F + I + W of a third size, in between, is from the line through the two, as a share
                      ///< of it; 0: not looked at
  bool rows_untold = false;      ///< how some number depends on the rows was neither measured nor written
  std::string kind = kHostKind;  ///< of the device
  bool operator==(const LayerProfile&) const = default;
};

/// Costs of layers by hand: each number takes the place of what was measured.
struct HandCosts {
  std::string pattern;    ///< of layer names
  std::int64_t rows = 0;  ///< of the micro-batch that the numbers are for; 0: for every one
  std::vector<std::pair<std::string, double>> numbers;  ///< by key of the file, as given: {"forward_ms", 10}
  Location at;                                          ///< for errors
  std::string kind;                                     ///< of devices: matches_kind(); empty: every kind
};

struct ProfiledDevice {
  std::string kind;         ///< or what matches some
  double memory_bytes = 0;  ///< of one of them; 0: not known
};

struct ProfiledWorker {
  double speed = 1;  ///< in a piece of work that every rank does, against rank 0
  WorkerPlace place;
  std::string kind = {};  ///< by hand: of the device of every worker there
  std::vector<std::pair<std::string, std::string>> devices =
      {};  ///< as measured: kinds by what workers.devices names;
           ///< the host's is left out. `speed` is the host's then
  bool operator==(const ProfiledWorker&) const = default;
};

using ProfileEnvironment = std::vector<std::pair<std::string, std::string>>;

struct Profile {
  std::string file;   ///< where it was read from, for messages; not part of what is written
  std::string model;  ///< name of the config that it was made from
  ProfileEnvironment
      environment;  ///< where and how it was measured: CPU, ISA, GEMM path, torch, threads, precision ...
  std::vector<LayerProfile> layers;
  std::vector<HandCosts> costs;  ///< the first whose pattern matches a layer counts; of the same kind before any kind
  std::vector<ProfiledDevice> devices;  ///< the first that matches a kind counts
  Links links;
  std::vector<std::string> given_links;  ///< classes that were measured or written ("same_rank", ...); others: assumed
  /// Bytes of one tensor that is added to another in a microsecond, by kind of device; not there: not known.
  std::map<std::string, double> added_bytes_per_us;
  std::vector<ProfiledWorker> workers;  ///< by rank that measured, or as written; empty: not known
};

/// Between and beyond the samples along the line through the nearest two; never below 0. From a single sample of a
/// number of rows: in proportion to the rows. update_us and step_bytes do not depend on rows.
LayerSample sample_at(const LayerProfile& layer, double rows);

/// Whether `pattern` is the kind, its type ("cuda" of "cuda NVIDIA H100 80GB HBM3"), or has wildcards for either.
bool matches_kind(const std::string& pattern, const std::string& kind);

/// What the profile says of this layer of a model on a kind of device: the measured numbers of its signature, with
/// those by hand in their place. Throws UserError (ConfigError where something is written by hand) that says what to
/// do: the layer was never measured, on that kind, has changed since, or is by hand and lacks one of its three times.
LayerProfile profile_of_layer(const Profile& profile, const std::string& layer, const std::string& signature,
                              const std::string& kind = kHostKind);

/// Of one worker of the kind that adds gradients up; 0: not known.
double add_us_per_byte_of(const Profile& profile, const std::string& kind);

/// Of one device of the kind; 0: not known.
double memory_bytes_of(const Profile& profile, const std::string& kind);

/// Hand-written costs, devices, links, adding and workers of `over` in front of, or in place of, those of `profile`.
/// `over` has no measured layers (else UserError).
Profile overlaid(Profile profile, const Profile& over);

/// How `here` differs from where the profile was measured, for a warning: "isa: avx2 here, avx512 in profile.json;
/// ...". Empty when it does not. `here` may have kinds of devices by their names. Keys that only one of them has, and
/// those that change no times, do not count.
std::string foreign_environment(const Profile& profile, const ProfileEnvironment& here);

std::string to_json(const Profile& profile);
/// The same as YAML with a line for each layer, for a file that has it as one of its sections.
std::string to_yaml(const Profile& profile);
/// Throws ConfigError for everything that is not a profile: another format, unknown keys, negative or missing numbers.
Profile read_profile(const Section& root);
Profile load_profile(const std::string& path);

/// One sample as JSON text, and back; for the cache.
std::string to_json(const LayerSample& sample);
LayerSample read_sample(const Section& section);

}  // namespace lockstep
