// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/run_record.hpp"

#include <bit>
#include <cstring>
#include <map>
#include <set>

#include "runtime/base/check.hpp"

namespace lockstep {
namespace {

class Recorder : public Observer {
 public:
  explicit Recorder(std::vector<StepResult>& results) : results_(results) {}
  void on_result(const StepResult& result) override { results_.push_back(result); }

 private:
  std::vector<StepResult>& results_;
};

bool same_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

/// By block; more than one of a block: copies disagree.
using Blocks = std::map<int, std::set<std::uint64_t>>;
struct Hashes {
  Blocks gradients, values;
};
using HashesByStep = std::map<std::int64_t, std::map<int, Hashes>>;

HashesByStep by_step(const RunRecord& record) {
  HashesByStep steps;
  for (const ParameterHash& hash : record.hashes) {
    if (hash.what == Hashed::buffer) continue;  // a buffer
    Hashes& entry = steps[hash.step][hash.parameter];
    (hash.what == Hashed::value ? entry.values : entry.gradients)[hash.block].insert(hash.hash);
  }
  return steps;
}

std::optional<std::string> compare_parameters(const std::map<int, Hashes>& reference,
                                              const std::map<int, Hashes>& tested, Blocks Hashes::*which,
                                              const char* what, const ModelGraph& graph) {
  if (reference.size() != tested.size())
    return concat(reference.size(), " against ", tested.size(), " parameters have a ", what);
  for (const auto& [parameter, hashes] : reference) {
    const auto other = tested.find(parameter);
    const ParameterInfo& info = graph.parameters[parameter];
    const std::string name = concat(what, " of ", info.name, " (layer ", graph.layers[info.holders.front()].name, ")");
    if (other == tested.end()) return name + " is missing";
    for (const auto& [block, copies] : other->second.*which)
      if (copies.size() > 1) return name + " differs between the workers that hold it";
    if (hashes.*which != other->second.*which) return name;
  }
  return std::nullopt;
}

std::optional<std::string> compare_heads(const StepResult& a, const StepResult& b) {
  if (a.heads.size() != b.heads.size()) return concat(a.heads.size(), " against ", b.heads.size(), " heads");
  for (std::size_t head = 0; head < a.heads.size(); ++head) {
    const HeadLoss &ours = a.heads[head], &theirs = b.heads[head];
    const std::string of = a.heads.size() > 1 ? concat(" of head ", head) : "";
    if (!same_bits(ours.denominator, theirs.denominator))
      return concat("loss denominator", of, " ", ours.denominator, " against ", theirs.denominator);
    if (!same_bits(ours.sum, theirs.sum)) return concat("loss", of, " ", ours.loss(), " against ", theirs.loss());
  }
  return std::nullopt;
}

std::optional<std::string> compare_metrics(const StepResult& a, const StepResult& b) {
  if (a.metrics.size() != b.metrics.size()) return concat(a.metrics.size(), " against ", b.metrics.size(), " metrics");
  for (std::size_t i = 0; i < a.metrics.size(); ++i) {
    const MetricValue &ours = a.metrics[i], &theirs = b.metrics[i];
    if (!same_bits(ours.value, theirs.value))
      return concat("metric ", ours.name, " ", ours.value, " against ", theirs.value);
    if (ours.picture != theirs.picture) return concat("the picture of metric ", ours.name);
  }
  return std::nullopt;
}

std::optional<std::string> compare_buffers(const RunRecord& reference, const RunRecord& tested, std::int64_t step,
                                           const ModelGraph& graph) {
  const auto of_step = [step](const RunRecord& record) {
    std::map<int, std::set<std::uint64_t>> hashes;  // of all that have one
    for (const ParameterHash& hash : record.hashes)
      if (hash.what == Hashed::buffer && hash.step == step) hashes[hash.parameter].insert(hash.hash);
    return hashes;
  };
  const std::map<int, std::set<std::uint64_t>> ours = of_step(reference), theirs = of_step(tested);
  for (const auto& [buffer, hash] : ours) {
    const auto other = theirs.find(buffer);
    if (other == theirs.end()) return concat("buffer ", graph.buffers[buffer].name, " is missing");
    if (other->second != hash) return concat("buffer ", graph.buffers[buffer].name);
  }
  return std::nullopt;
}

}  // namespace

std::string RunRecord::hashes_to_bytes() const {
  std::string bytes(hashes.size() * sizeof(ParameterHash), '\0');
  if (!hashes.empty()) std::memcpy(bytes.data(), hashes.data(), bytes.size());
  return bytes;
}

void RunRecord::add_hashes(const std::string& bytes) {
  LOCKSTEP_CHECK(bytes.size() % sizeof(ParameterHash) == 0, "hashes of the wrong length");
  const std::size_t count = bytes.size() / sizeof(ParameterHash), old = hashes.size();
  hashes.resize(old + count);
  if (count > 0) std::memcpy(hashes.data() + old, bytes.data(), bytes.size());
}

RunRecord record_run(Trainer& trainer, RunOptions options, const TrainingOrders& orders) {
  RunRecord record;
  Recorder recorder(record.results);
  options.observer = &recorder;
  options.record_hashes = true;
  JobOutcome outcome = trainer.fit(options, orders);
  record.hashes = std::move(outcome.hashes);
  record.parameters = std::move(outcome.parameters);
  record.buffers = std::move(outcome.buffers);
  return record;
}

std::optional<std::string> first_difference(const RunRecord& reference, const RunRecord& tested,
                                            const ModelGraph& graph) {
  const HashesByStep expected = by_step(reference), got = by_step(tested);
  for (std::size_t i = 0; i < reference.results.size(); ++i) {
    const StepResult& a = reference.results[i];
    if (i >= tested.results.size()) return concat("the tested run ends before step ", a.step);
    const StepResult& b = tested.results[i];
    const std::string step = concat("step ", a.step, " (", to_string(a.mode), "): ");
    if (a.step != b.step || a.mode != b.mode) return step + "the tested run does something else";
    if (auto found = compare_heads(a, b)) return step + *found;
    if (auto found = compare_metrics(a, b)) return step + *found;
    if (a.mode != Mode::train) continue;
    if (!expected.count(a.step) || !got.count(a.step)) return step + "no hashes were recorded";
    const std::map<int, Hashes>&ours = expected.at(a.step), &theirs = got.at(a.step);
    if (auto found = compare_parameters(ours, theirs, &Hashes::gradients, "gradient", graph)) return step + *found;
    if (!same_bits(a.gradient_norm, b.gradient_norm))
      return concat(step, "gradient norm ", a.gradient_norm, " against ", b.gradient_norm);
    if (auto found = compare_parameters(ours, theirs, &Hashes::values, "value", graph)) return step + *found;
    if (auto found = compare_buffers(reference, tested, a.step, graph)) return step + *found;
  }
  if (tested.results.size() != reference.results.size()) return "the tested run goes on after the last step";
  return std::nullopt;
}

Config one_worker(Config config) {
  config.train.gradient_groups = config.gradient_groups();
  config.replicas = {};
  config.pipeline = {};
  config.train.post_validation = false;
  config.workers.per_rank.clear();
  return config;
}

}  // namespace lockstep
