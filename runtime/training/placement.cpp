// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/placement.hpp"

#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>
#include <numeric>

#include "partitioner/cuts.hpp"

#include "runtime/base/pattern.hpp"

namespace lockstep {
namespace {

std::vector<std::string> names_of(const std::vector<LayerSpec>& layers) {
  std::vector<std::string> names;
  for (const LayerSpec& layer : layers) names.push_back(layer.name);
  return names;
}

}  // namespace

std::vector<int> layers_per_stage(const ModelGraph& graph, const Config& config) {
  const PipelineConfig& pipeline = config.pipeline;
  const Section section = config.root.section("pipeline");
  const int layers = graph.layer_count();
  if (pipeline.partition.needs_profile())
    throw section.error("partition",
                        concat("got ", to_string(pipeline.partition.by),
                               ", expected layers, params, counts or "
                               "cut_before: only the lockstep command measures layers, and then gives counts"));
  if (!pipeline.partition.counts.empty()) {
    const std::vector<int>& counts = pipeline.partition.counts;
    const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    if (total != layers)
      throw section.error("partition", concat("got ", total, " layers in [", join(pipeline.partition.counts),
                                              "], the model has ", layers, ": ", join(names_of(graph.layers))));
    return pipeline.partition.counts;
  }
  if (!pipeline.partition.cut_before.empty()) {
    try {
      return cut_before(names_of(graph.layers), pipeline.partition.cut_before);
    } catch (const UserError& error) {
      throw section.section("partition").error("cut_before", error.what());
    }
  }
  if (pipeline.stages > layers)
    throw section.error("stages", concat("got ", pipeline.stages, ", the model has ", layers,
                                         " layers and every stage needs at least one; use at most ", layers));
  std::vector<double> weights;
  for (int layer = 0; layer < layers; ++layer)
    weights.push_back(pipeline.partition.by == CutBy::layers ? 1.0
                                                             : static_cast<double>(graph.elements_of_layer(layer)));
  return balanced_cut(weights, pipeline.stages);
}

std::vector<bool> recomputed_layers(const ModelGraph& graph, const Config& config) {
  const PipelineConfig& pipeline = config.pipeline;
  if (pipeline.recompute == Recompute::never) return {};
  std::vector<bool> chosen(static_cast<std::size_t>(graph.layer_count()), pipeline.recompute_layers.empty());
  const std::vector<std::string> names = names_of(graph.layers);
  for (const std::string& pattern : pipeline.recompute_layers) {
    bool found = false;
    for (std::size_t layer = 0; layer < names.size(); ++layer) {
      if (!matches(pattern, names[layer])) continue;
      chosen[layer] = found = true;
    }
    if (!found)
      throw config.root.section("pipeline")
          .error("recompute", concat("no layer matches '", pattern, "'; the model has: ", join(names),
                                     did_you_mean(pattern, names)));
  }
  return chosen;
}

Replicas replicas_of(const Config& config) {
  Replicas replicas;
  replicas.count = config.replicas.count;
  replicas.groups = config.gradient_groups();
  replicas.micro_batches = config.train.micro_batches;
  return replicas;
}

bool has_central_storage(const Config& config) {
  return config.replicas.count > 1 && config.replicas.strategy == ReplicaStrategy::central_storage;
}

int worker_of(const Config& config, int replica, int row, int workers) {
  const std::vector<int>& placement = config.pipeline.placement;
  const int of_pipeline = placement.empty() ? row : placement[static_cast<std::size_t>(row)];
  const bool pipeline_first = config.replicas.placement == ReplicaPlacement::pipeline_first;
  return pipeline_first ? replica * workers + of_pipeline : of_pipeline * config.replicas.count + replica;
}

std::vector<RankId> spread_workers(int workers, int ranks, const std::vector<int>& per_rank, const Section& section) {
  std::vector<int> counts = per_rank;
  if (counts.empty())
    for (int r = 0; r < ranks; ++r) counts.push_back(workers / ranks + (r < workers % ranks ? 1 : 0));
  if (counts.size() == 1) counts.assign(static_cast<std::size_t>(ranks), per_rank.empty() ? counts[0] : per_rank[0]);
  const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  const bool idle = std::any_of(counts.begin(), counts.end(), [](int count) { return count < 1; });
  if (static_cast<int>(counts.size()) != ranks || total != workers || idle)
    throw section.error("per_rank",
                        concat("[", join(counts), "] places ", total, " workers on ", counts.size(),
                               " ranks, but the job has ", workers, " workers (pipeline.stages / virtual_stages) and ",
                               ranks, " ranks, and every rank needs at least one; ",
                               per_rank.size() > 1 ? concat("start ", per_rank.size(), " ranks, or leave per_rank out")
                                                   : concat("start ", workers, " ranks or fewer"),
                               ", or change pipeline.stages"));
  std::vector<RankId> rank_of_worker;
  for (int rank = 0; rank < ranks; ++rank) rank_of_worker.insert(rank_of_worker.end(), counts[rank], RankId(rank));
  return rank_of_worker;
}

RankSpread spread_rows(const Config& config, int workers, int ranks, const Section& section) {
  const int servers = config.replicas.has_servers() ? config.replicas.servers : 0;
  const int further = servers > 0 ? std::max(0, ranks - workers) : 0;  // ranks without a worker
  if (further > servers)
    throw config.root.section("replicas")
        .error("servers", concat("got ", servers, " servers and ", workers, " workers on ", ranks,
                                 " ranks, of which every one needs a worker or a server; start ", workers + servers,
                                 " ranks or fewer"));
  RankSpread spread{spread_workers(workers, ranks - further, config.workers.per_rank, section), {}};
  for (RankId& rank : spread.rank_of_worker) rank = RankId(rank.value() + further);
  const int hosts = further > 0 ? further : ranks;
  for (int server = 0; server < servers; ++server) spread.rank_of_server.emplace_back(server * hosts / servers);
  return spread;
}

/// Whether this LibTorch and this machine have the device.
at::Device device_of(const std::string& name, const Section& workers) {
  at::Device device(name);
  if (device.is_cpu()) return device;
  const bool known = c10::impl::hasDeviceGuardImpl(device.type());
  const int count = known ? c10::impl::getDeviceGuardImpl(device.type())->deviceCount() : 0;
  if (std::max<int>(device.index(), 0) >= count)
    throw workers.error("devices",
                        concat("got ", name, ", but ",
                               known ? concat("this machine has ", count) : std::string("this LibTorch knows no"), " ",
                               c10::DeviceTypeName(device.type(), /*lower_case=*/true), " devices; use [cpu]"));
  if (!device.has_index()) device.set_index(0);  // that its tensors are of
  return device;
}

}  // namespace lockstep
