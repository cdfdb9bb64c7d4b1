// SPDX-License-Identifier: Apache-2.0
//
// Where layers and workers go: the config's `pipeline` and `workers`, for a model at hand.
#pragma once

#include <c10/core/Device.h>

#include <string>
#include <vector>

#include "runtime/base/ids.hpp"
#include "runtime/config/config.hpp"
#include "runtime/graph/model_graph.hpp"
#include "runtime/schedule/replicas.hpp"

namespace lockstep {

/// Of pipeline.partition. Throws ConfigError when it does not fit the model.
std::vector<int> layers_per_stage(const ModelGraph& graph, const Config& config);

/// By layer, whether its forward may be run again; empty: of none. Throws ConfigError for a pattern without a layer.
std::vector<bool> recomputed_layers(const ModelGraph& graph, const Config& config);

/// How many there are, and which part of a mini-batch each has.
Replicas replicas_of(const Config& config);

/// Several replicas whose weights are in main memory, wherever they compute.
bool has_central_storage(const Config& config);

/// Worker that runs a row of a replica's pipeline of so many workers, as the config places them.
int worker_of(const Config& config, int replica, int row, int workers);

/// Rank of each worker: `per_rank` as in the config (empty: spread evenly, in order). ConfigError when a rank is left
/// without a worker or the numbers do not add up. `section`: the config's workers.
std::vector<RankId> spread_workers(int workers, int ranks, const std::vector<int>& per_rank, const Section& section);

/// Where all rows are: workers, and servers, if there are any. With no more ranks than workers the servers are in their
/// processes, the first one in that of rank 0; further ranks have servers alone, and come first.
struct RankSpread {
  std::vector<RankId> rank_of_worker, rank_of_server;
};
RankSpread spread_rows(const Config& config, int workers, int ranks, const Section& section);

/// Throws ConfigError when this LibTorch or this machine has no such device.
at::Device device_of(const std::string& name, const Section& workers);

}  // namespace lockstep
