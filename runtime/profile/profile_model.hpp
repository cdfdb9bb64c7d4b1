// SPDX-License-Identifier: Apache-2.0
//
// The profile of all layers of a model: identical ones measured once, from the cache where they are known, shared among
// the ranks of a job.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "partitioner/profile_file.hpp"
#include "runtime/base/log.hpp"
#include "runtime/profile/measure.hpp"

namespace lockstep {

/// One layer of one size has been measured, or found in the cache.
struct ProfileProgress {
  int done = 0, total = 0;  ///< of this rank
  std::string layer, kind;  ///< the kind of device
  bool cached = false;
  LayerSample sample;
};

struct ProfileRequest {
  std::string model;                                      ///< name of the config
  std::function<ModelGraph(std::int64_t rows)> describe;  ///< the model for micro-batches of so many rows
  /// Entries of so many samples of the data: what tables are read by; empty: it is made up.
  std::function<Tensors(std::int64_t rows)> read = {};
  Losses losses;                     ///< by head
  std::vector<std::int64_t> rows;    ///< the two sizes, or one, ascending: rows_to_measure()
  int workers = 1;                   ///< that the model will be spread over: layer_groups()
  double group_bytes = kCacheBytes;  ///< of layers that are measured together
  MeasureOptions measure;
  std::string kind = kHostKind;                          ///< of measure.stage.device
  ProfileEnvironment environment;                        ///< part of what the cache goes by
  std::string cache;                                     ///< folder (made when needed); empty: everything is measured
  std::function<void(const ProfileProgress&)> progress;  ///< may be empty
  Log log;
};

/// The ranks that share the work: groups of layers go round among them, and who has done its part keeps its cores busy
/// until all have. `all_gather` gives the value of every rank in rank order; every rank calls it equally often, also
/// one that has no such device. Empty: this rank is alone.
struct ProfileSharing {
  int rank = 0, ranks = 1;  ///< of those with such a device; rank -1: it has none
  std::function<std::vector<std::string>(const std::string&)> all_gather;
};

/// The largest slice of a batch (rounded up) and half of it, but no fewer than `least_rows` (ModelGraph::least_rows).
std::vector<std::int64_t> rows_to_measure(std::int64_t batch, int micro_batches, std::int64_t least_rows);

/// model, environment and layers, the same on every rank; links and workers are the caller's. Throws LayerError.
Profile profile_model(const ProfileRequest& request, const ProfileSharing& sharing = {});

}  // namespace lockstep
