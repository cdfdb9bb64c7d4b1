// SPDX-License-Identifier: Apache-2.0
#include "runtime/profile/profile_model.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <optional>
#include <sstream>
#include <thread>

#include "partitioner/profile_cache.hpp"
#include "runtime/base/check.hpp"

namespace lockstep {
namespace {

struct Described {
  ModelGraph graph;
  Partition partition;
  Tensors data;
};

/// Layers of one size that are measured together, on one rank.
struct Unit {
  std::int64_t rows = 0;
  bool checks = false;  // the third size, which only tells how good the line is
  LayerGroup group;
};

/// Keeps this rank's cores busy while other ranks measure.
class Company {
 public:
  template <typename Work>
  explicit Company(const Work& work) : thread_([this, work] { work(stop_); }) {}
  ~Company() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class Profiler {
 public:
  Profiler(const ProfileRequest& request, const ProfileSharing& sharing)
      : request_(request), sharing_(sharing), cache_(request.cache) {
    LOCKSTEP_CHECK(!request.rows.empty() && std::is_sorted(request.rows.begin(), request.rows.end()), "rows ",
                   join(request.rows));
    list_kinds();
    list_units();
  }

  Profile run() {
    std::vector<std::size_t> mine;
    for (std::size_t unit = 0; unit < units_.size(); ++unit) {
      if (!is_mine(unit)) continue;
      mine.push_back(unit);
      progress_.total += static_cast<int>(units_[unit].group.members.size());
    }
    std::string samples;
    std::vector<std::size_t> to_measure;
    for (const std::size_t unit : mine) {
      const auto known = known_samples(units_[unit]);
      if (!known)
        to_measure.push_back(unit);
      else
        samples += told(unit, *known, /*cached=*/true);
    }
    bool all_known = to_measure.empty();
    if (sharing_.all_gather)
      for (const std::string& rank : sharing_.all_gather(all_known ? "" : "measures")) all_known &= rank.empty();
    for (const std::size_t unit : to_measure) samples += told(unit, measured(units_[unit]), /*cached=*/false);
    return profile_of(gathered(samples, all_known));
  }

 private:
  // Neighbouring units go to different ranks, and the large sizes to all of them.
  bool is_mine(std::size_t unit) const {
    if (sharing_.rank < 0) return false;
    const auto ranks = static_cast<std::size_t>(sharing_.ranks);
    return (unit + unit / sizes_.size()) % ranks == static_cast<std::size_t>(sharing_.rank);
  }

  const Described& described(std::int64_t rows) {
    const auto found = described_.find(rows);
    if (found != described_.end()) return found->second;
    ModelGraph graph = request_.describe(rows);
    Partition partition = one_layer_each(graph);
    Tensors data = request_.read ? request_.read(rows) : Tensors();
    return described_.emplace(rows, Described{std::move(graph), std::move(partition), std::move(data)}).first->second;
  }

  void list_kinds() {
    const ModelGraph& graph = described(request_.rows.back()).graph;
    const std::vector<double> values = value_bytes(graph, request_.measure.stage.precision);
    std::map<std::string, std::size_t> seen;
    for (int layer = 0; layer < graph.layer_count(); ++layer) {
      const std::string signature = signature_of(graph, layer, request_.losses);
      const auto [found, is_new] = seen.emplace(signature, kinds_.size());
      if (is_new) {
        // Weights and values, and the gradients of both.
        const double weights = 4.0 * static_cast<double>(graph.elements_of_layer(layer));
        kinds_.push_back({{}, 2 * (weights + entry_bytes(graph, layer, values))});
        signatures_.push_back(signature);
      }
      kinds_[found->second].layers.push_back(layer);
    }
  }

  /// The sizes of one group stand together.
  void list_units() {
    const std::int64_t least = request_.rows.front(), most = request_.rows.back();
    for (const std::int64_t rows : request_.rows) sizes_.emplace_back(rows, false);
    if (most - least >= 2) sizes_.emplace_back((least + most) / 2, true);
    for (const LayerGroup& group : layer_groups(kinds_, request_.workers, request_.group_bytes))
      for (const auto& [rows, checks] : sizes_) units_.push_back({rows, checks, group});
  }

  MeasureOptions options_for(const Unit& unit) const {
    MeasureOptions options = request_.measure;
    if (unit.checks) options.repeats = std::min(options.repeats, kFewestRepeats);
    return options;
  }

  GroupToMeasure of(const Unit& unit, const MeasureOptions& options) {
    const Described& model = described(unit.rows);
    return {model.graph, model.partition, unit.group, unit.rows, request_.losses, options, model.data};
  }

  std::string key_of(const Unit& unit, int kind, const MeasureOptions& options) {
    std::string key =
        concat("v5; ", signature_text(described(unit.rows).graph, kinds_[kind].layers[0], request_.losses), "; rows ",
               unit.rows, "; threads at once ", options.workers, "; of workers ", request_.workers, "; repeats ",
               options.repeats, "; finite ", options.stage.check_finite, "; clip ", options.clip);
    for (const auto& [name, value] : request_.environment) key += concat("; ", name, " ", value);
    if (request_.kind != kHostKind) key += concat("; device ", request_.kind);
    return key;
  }

  /// All of the unit or nothing: what one layer costs depends on the others' being there.
  std::optional<std::vector<LayerSample>> known_samples(const Unit& unit) {
    std::vector<LayerSample> samples;
    for (const LayerGroup::Member& member : unit.group.members) {
      const auto known = cache_.find(key_of(unit, member.kind, options_for(unit)));
      if (!known || known->rows != unit.rows) return std::nullopt;
      samples.push_back(*known);
    }
    return samples;
  }

  std::vector<LayerSample> measured(const Unit& unit) {
    const MeasureOptions options = options_for(unit);
    const std::vector<LayerSample> samples = measure_layers(of(unit, options));
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const std::string problem = cache_.store(key_of(unit, unit.group.members[i].kind, options), samples[i]);
      if (problem.empty() || warned_) continue;
      warned_ = true;
      request_.log.warn(problem + "; the next run measures again");
    }
    return samples;
  }

  /// Lines for the other ranks; what they say is reported as progress.
  std::string told(std::size_t unit, const std::vector<LayerSample>& samples, bool cached) {
    std::string lines;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      lines += concat(unit, " ", i, " ", to_json(samples[i]), "\n");
      const AlikeLayers& kind = kinds_[units_[unit].group.members[i].kind];
      progress_.sample = samples[i];
      progress_.layer = described(units_[unit].rows).graph.layers[kind.layers[0]].name;
      progress_.kind = request_.kind;
      progress_.cached = cached;
      ++progress_.done;
      if (request_.progress) request_.progress(progress_);
    }
    return lines;
  }

  std::vector<std::string> gathered(const std::string& samples, bool all_known) {
    if (!sharing_.all_gather) return {samples};
    // Of the smallest layers: soon made, and soon left.
    const GroupToMeasure smallest = of(units_.front(), request_.measure);
    std::optional<Company> company;
    if (!all_known && sharing_.rank >= 0 && sharing_.ranks > 1)
      company.emplace([&](const std::atomic<bool>& stop) { keep_busy(smallest, stop); });
    return sharing_.all_gather(samples);
  }

  Profile profile_of(const std::vector<std::string>& all) {
    std::vector<std::vector<LayerSample>> samples(units_.size());
    for (std::size_t unit = 0; unit < units_.size(); ++unit) samples[unit].resize(units_[unit].group.members.size());
    for (const std::string& text : all) {
      std::istringstream lines(text);
      std::size_t unit = 0, member = 0;
      for (std::string json; lines >> unit >> member && std::getline(lines, json);)
        samples.at(unit).at(member) = read_sample(load_config_text(json, "a measured sample"));
    }
    Profile profile;
    profile.model = request_.model;
    profile.environment = request_.environment;
    const ModelGraph& graph = described(request_.rows.back()).graph;
    for (std::size_t kind = 0; kind < kinds_.size(); ++kind)
      profile.layers.push_back(
          {graph.layers[kinds_[kind].layers[0]].name, signatures_[kind], {}, 0, false, request_.kind});
    for (std::size_t unit = 0; unit < units_.size(); ++unit)
      for (std::size_t member = 0; member < samples[unit].size(); ++member) {
        const int kind = units_[unit].group.members[member].kind;
        const LayerSample& sample = samples[unit][member];
        LOCKSTEP_CHECK(sample.rows == units_[unit].rows, "nobody measured kind ", kind, " with ", units_[unit].rows,
                       " rows");
        LayerProfile& layer = profile.layers[static_cast<std::size_t>(kind)];
        if (units_[unit].checks)
          layer.misfit = misfit(layer, sample);
        else
          layer.samples.push_back(sample);
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
  std::map<std::int64_t, Described> described_;       // by rows
  std::vector<AlikeLayers> kinds_;                    // in the order of their first layers
  std::vector<std::string> signatures_;               // by kind
  std::vector<std::pair<std::int64_t, bool>> sizes_;  // rows, ascending; whether they only check
  std::vector<Unit> units_;
  ProfileProgress progress_;
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
