// SPDX-License-Identifier: Apache-2.0
#include "runtime/profile/profile_model.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "runtime/base/check.hpp"
#include "runtime/profile/cache.hpp"

namespace lockstep {
namespace {

struct Described {
  ModelGraph graph;
  Partition partition;
};

/// One layer and one size: what is measured, or found in the cache, on one rank.
struct Piece {
  int layer = 0;
  std::string signature;
  std::int64_t rows = 0;
  bool checks = false;  // the third size, which only tells how good the line is
};

class Profiler {
 public:
  Profiler(const ProfileRequest& request, const ProfileSharing& sharing)
      : request_(request), sharing_(sharing), cache_(request.cache) {
    LOCKSTEP_CHECK(!request.rows.empty() && std::is_sorted(request.rows.begin(), request.rows.end()), "rows ",
                   join(request.rows));
    list_pieces();
  }

  Profile run() {
    std::string mine;
    ProfileProgress progress;
    for (std::size_t i = 0; i < pieces_.size(); ++i) progress.total += is_mine(i) ? 1 : 0;
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      if (!is_mine(i)) continue;
      progress.sample = sample_of(pieces_[i], progress.cached);
      progress.layer = described(pieces_[i].rows).graph.layers[pieces_[i].layer].name;
      ++progress.done;
      mine += concat(i, " ", to_json(progress.sample), "\n");
      if (request_.progress) request_.progress(progress);
    }
    const std::vector<std::string> all =
        sharing_.ranks > 1 ? sharing_.all_gather(mine) : std::vector<std::string>{mine};
    return profile_of(all);
  }

 private:
  // Neighbouring pieces, the sizes of one layer, go to different ranks, and the large sizes to all of them.
  bool is_mine(std::size_t piece) const {
    const std::size_t ranks = static_cast<std::size_t>(sharing_.ranks);
    return (piece + piece / std::max<std::size_t>(sizes_, 1)) % ranks == static_cast<std::size_t>(sharing_.rank);
  }

  const Described& described(std::int64_t rows) {
    const auto found = described_.find(rows);
    if (found != described_.end()) return found->second;
    ModelGraph graph = request_.describe(rows);
    Partition partition = one_layer_each(graph);
    return described_.emplace(rows, Described{std::move(graph), std::move(partition)}).first->second;
  }

  void list_pieces() {
    const std::int64_t least = request_.rows.front(), most = request_.rows.back();
    const ModelGraph& graph = described(most).graph;
    std::map<std::string, int> seen;
    for (int layer = 0; layer < graph.layer_count(); ++layer) {
      const std::string signature = signature_of(graph, layer, request_.losses);
      if (!seen.emplace(signature, layer).second) continue;
      for (const std::int64_t rows : request_.rows) pieces_.push_back({layer, signature, rows, false});
      if (most - least >= 2) pieces_.push_back({layer, signature, (least + most) / 2, true});
      if (sizes_ == 0) sizes_ = pieces_.size();
    }
  }

  std::string key_of(const Piece& piece, const MeasureOptions& options) {
    std::string key =
        concat("v3; ", signature_text(described(piece.rows).graph, piece.layer, request_.losses), "; rows ", piece.rows,
               "; workers ", options.workers, "; repeats ", options.repeats, "; cold ", options.cold_bytes, "; finite ",
               options.stage.check_finite, "; clip ", options.clip);
    for (const auto& [name, value] : request_.environment) key += concat("; ", name, " ", value);
    return key;
  }

  LayerSample sample_of(const Piece& piece, bool& cached) {
    MeasureOptions options = request_.measure;
    if (piece.checks) options.repeats = std::min(options.repeats, kFewestRepeats);
    const std::string key = key_of(piece, options);
    const std::optional<LayerSample> known = cache_.find(key);
    cached = known && known->rows == piece.rows;
    if (cached) return *known;
    const Described& model = described(piece.rows);
    const LayerSample sample =
        measure_layer(model.graph, model.partition, piece.layer, piece.rows, request_.losses, options);
    if (const std::string problem = cache_.store(key, sample); !problem.empty() && !warned_) {
      warned_ = true;
      request_.log.warn(problem + "; the next run measures again");
    }
    return sample;
  }

  Profile profile_of(const std::vector<std::string>& all) {
    std::vector<LayerSample> samples(pieces_.size());
    for (const std::string& text : all) {
      std::istringstream lines(text);
      std::size_t piece = 0;
      for (std::string json; lines >> piece && std::getline(lines, json);)
        samples.at(piece) = read_sample(load_config_text(json, "a measured sample"));
    }
    Profile profile;
    profile.model = request_.model;
    profile.environment = request_.environment;
    const ModelGraph& graph = described(request_.rows.back()).graph;
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      const Piece& piece = pieces_[i];
      LOCKSTEP_CHECK(samples[i].rows == piece.rows, "nobody measured layer ", piece.layer, " with ", piece.rows,
                     " rows");
      if (profile.layers.empty() || profile.layers.back().signature != piece.signature)
        profile.layers.push_back({graph.layers[piece.layer].name, piece.signature, {}, 0});
      LayerProfile& layer = profile.layers.back();
      if (piece.checks)
        layer.misfit = misfit(layer, samples[i]);
      else
        layer.samples.push_back(samples[i]);
    }
    return profile;
  }

  static double misfit(const LayerProfile& layer, const LayerSample& third) {
    const auto time = [](const LayerSample& s) { return s.forward_us + s.input_grad_us + s.weight_grad_us; };
    const double line = time(sample_at(layer, static_cast<double>(third.rows)));
    return line > 0 ? std::round(std::abs(time(third) - line) / line * 1e3) / 1e3 : 0;
  }

  const ProfileRequest& request_;
  const ProfileSharing& sharing_;
  ProfileCache cache_;
  std::map<std::int64_t, Described> described_;  // by rows
  std::vector<Piece> pieces_;                    // of one layer after another
  std::size_t sizes_ = 0;                        // of a layer
  bool warned_ = false;
};

}  // namespace

std::vector<std::int64_t> rows_to_measure(std::int64_t batch, int micro_batches, std::int64_t least_rows) {
  const std::int64_t most = std::max((batch + micro_batches - 1) / micro_batches, least_rows);
  const std::int64_t half = std::max({most / 2, least_rows, std::int64_t{1}});
  return half < most ? std::vector<std::int64_t>{half, most} : std::vector<std::int64_t>{most};
}

Profile profile_model(const ProfileRequest& request, const ProfileSharing& sharing) {
  return Profiler(request, sharing).run();
}

}  // namespace lockstep
