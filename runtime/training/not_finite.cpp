// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/not_finite.hpp"

#include <algorithm>
#include <numeric>

#include "runtime/training/assembly.hpp"

namespace lockstep {
namespace {

/// Of the gradient of a parameter it is only known when all micro-batches have been added.
bool is_of_whole_step(const NonFinite& found) {
  return found.what.starts_with("gradient of ");
}

}  // namespace

std::string describe(const NonFinite& found, const ModelGraph& graph) {
  const int head = found.layer - graph.layer_count();
  const std::string place = head < 0 ? concat(" of layer ", found.layer, " '", graph.layers[found.layer].name, "'")
                            : graph.heads.size() > 1 ? concat(" of head ", head)
                                                     : "";
  return concat("first in the ", found.what, place,
                is_of_whole_step(found) ? "" : concat(", micro-batch ", found.micro_batch));
}

std::string samples_text(const Config& config, const DataSplits& data, const NotFiniteRun& run) {
  constexpr std::size_t kMost = 8;
  const bool trains = run.mode == Mode::train;
  const Dataset& set = trains ? *data.train : evaluation_set(data, run.set);
  const std::int64_t batch = trains ? config.train.batch : config.train.rows_of_evaluation();
  std::vector<std::int64_t> samples;
  if (trains) {
    samples = sampler_of(config, data).of_step(run.step, batch);
  } else {
    samples.resize(static_cast<std::size_t>(std::min(batch, set.size() - run.position)));
    std::iota(samples.begin(), samples.end(), run.position);
  }
  const std::vector<std::int64_t> slices =
      slice_rows(batch, static_cast<int>(std::min<std::int64_t>(config.train.micro_batches, batch)),
                 static_cast<std::int64_t>(samples.size()));
  auto begin = samples.begin(), end = samples.end();
  if (!is_of_whole_step(run.first)) {
    const auto slice = slices.begin() + run.first.micro_batch;
    begin += std::accumulate(slices.begin(), slice, std::int64_t{0});
    end = begin + *slice;
  }
  const bool has_places = !set.place_of(*begin).empty();
  std::vector<std::string> names;
  for (auto sample = begin; sample != end && names.size() < kMost; ++sample)
    names.push_back(has_places ? set.place_of(*sample) : concat(*sample));
  const std::string more = end - begin > static_cast<std::ptrdiff_t>(kMost) ? ", ..." : "";
  if (has_places) return join(names) + more;
  return concat("samples ", join(names), more, " of the ", trains ? "training set" : name_of_set(data, run.set));
}

}  // namespace lockstep
