// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/checkpointing.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <numeric>

#include "runtime/base/check.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/base/size.hpp"
#include "runtime/base/text.hpp"
#include "runtime/checkpoint/adapter.hpp"
#include "runtime/checkpoint/weight_files.hpp"
#include "runtime/host/machine.hpp"
#include "runtime/layer/tensor_hash.hpp"
#include "runtime/training/data_record.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

std::string part_of(const std::string& checkpoints, std::int64_t step) {
  return checkpoint_path(checkpoints, step) + ".part";
}

std::string shard_name(const char* kind, int row, int rows) {
  std::ostringstream out;
  out << kind << "-" << std::setfill('0') << std::setw(5) << row + 1 << "-of-" << std::setw(5) << rows
      << ".safetensors";
  return out.str();
}

void log_time(const Log& log, std::int64_t step, std::int64_t bytes, const char* what, double start_us) {
  log.debug(concat("checkpoint of step ", step, ": ", size_text(static_cast<double>(bytes)), " ", what, " in ",
                   time_text(now_us() - start_us)));
}

}  // namespace

// ---- one worker ----

struct ShardKeeper::Shard {
  std::int64_t step = 0;
  std::vector<NamedTensor> weights, optimizer, copies, bases;
  std::int64_t bytes() const {
    std::int64_t sum = 0;
    for (const auto* list : {&weights, &optimizer, &copies})
      for (const NamedTensor& each : *list) sum += static_cast<std::int64_t>(each.tensor.nbytes());
    return sum;
  }
  /// Of what the worker may still be computing.
  c10::Device device() const {
    for (const auto* list : {&weights, &optimizer, &copies})
      for (const NamedTensor& each : *list)
        if (!each.tensor.device().is_cpu()) return each.tensor.device();
    return at::kCPU;
  }
};

/// What a training starts with; the optimizer's state stays as it begins (averages: as the weights after step 1).
void ShardKeeper::start(const WorkerState& state, const FileProgress& progress) const {
  const double start_us = now_us();
  WeightFiles files(options_.initial->path, progress);
  std::int64_t bytes = 0;
  for (const HeldTensor& held : state.weights) {
    const auto from = options_.initial->from.find(held.name);
    if (from == options_.initial->from.end()) continue;
    if (held.part) {  // rows of a table
      const at::Tensor whole = at::empty(files.find(from->second)->sizes, held.tensor.options());
      files.read(from->second, whole);
      held.tensor.view({-1}).copy_(whole.view({-1}).narrow(0, held.part->begin, held.part->count()));
    } else {
      files.read(from->second, held.tensor);
    }
    bytes += static_cast<std::int64_t>(held.tensor.nbytes());
  }
  options_.log.debug(
      concat("initial weights: ", size_text(static_cast<double>(bytes)), " read in ", time_text(now_us() - start_us)));
}

void ShardKeeper::restore(const WorkerState& state, const WaitLimits& limits) {
  const double start_us = now_us();
  limits.turn_to(Activity::restoring);
  const FileProgress progress = [&limits] {
    limits.moved();
    limits.alive();
  };
  if (options_.initial) start(state, progress);
  if (options_.resume_from.empty()) return limits.turn_to(Activity::none);
  CheckpointStore store(options_.resume_from, progress);
  std::int64_t bytes = 0;
  const auto read = [&](TensorKind kind, const std::string& name, const HeldTensor& held) {
    store.read(kind, name, held.tensor, held.part);
    bytes += static_cast<std::int64_t>(held.tensor.nbytes());
  };
  for (const HeldTensor& held : state.weights)
    if (held.is_base)
      check_base(store, held);
    else if (options_.averaged && store.has_average(held.name))
      read(TensorKind::optimizer, CheckpointStore::average_of(held.name), held);
    else
      read(TensorKind::weight, held.name, held);
  for (const HeldTensor& held : state.optimizer)
    if (held.restarts && options_.optimizer_restarts)
      continue;
    else if (!held.starts_as.empty() && !store.has(TensorKind::optimizer, held.name))
      read(TensorKind::weight, held.starts_as, held);
    else
      read(TensorKind::optimizer, held.name, held);
  limits.turn_to(Activity::none);
  log_time(options_.log, store.manifest().step, bytes, "read", start_us);
}

void ShardKeeper::check_base(const CheckpointStore& store, const HeldTensor& held) const {
  const auto known = store.manifest().bases.find(held.name);
  const std::string here = base_text(held.tensor), dtype = here.substr(0, here.find(' ') + 1);
  if (known == store.manifest().bases.end())
    throw CheckpointError(store.path(), held.name, -1, "is not of the base that its adapter was trained on");
  if (known->second == here || !known->second.starts_with(dtype)) return;  // of another precision nothing is known
  throw CheckpointError(store.path(), held.name, -1,
                        concat("is of an adapter, which was trained on other values than ",
                               options_.initial ? options_.initial->path + " has" : "this seed gives",
                               ": take the base that it was trained on, with train.init_from"));
}

bool ShardKeeper::copies(const Shard& shard) const {
  if (options_.background != Background::automatic) return options_.background == Background::always;
  return machine_memory().available_bytes > shard.bytes() * (options_.workers_here + 1);
}

void ShardKeeper::save(std::int64_t step, const WorkerState& state, const WaitLimits& limits) {
  LOCKSTEP_CHECK(!options_.checkpoints.empty(), "a save without a folder");
  drain(limits);
  Shard shard;
  shard.step = step;
  for (const HeldTensor& held : state.weights) {
    if (held.is_base && !held.is_first_holder) continue;  // who holds it first says what it is
    auto& saved = held.is_first_holder ? shard.weights : shard.copies;
    const std::string name = held.part ? name_of_part(held.name, *held.part) : held.name;
    (held.is_base ? shard.bases : saved).push_back({name, held.tensor.detach(), held.may_be_infinite});
  }
  for (const HeldTensor& held : state.optimizer)
    if (held.is_first_holder)
      shard.optimizer.push_back({held.part ? name_of_part(held.name, *held.part) : held.name, held.tensor.detach()});
  const bool in_background = copies(shard);
  if (in_background) copy(shard, limits);
  written_ = std::make_shared<Written>(Written{"", shard.device(), {}});
  writing_ = std::make_unique<SaveTask>(
      [options = options_, shard = std::move(shard), written = written_, bases = bases_,
       computed = DeviceStream::current(written_->device).record()](const FileProgress& progress) {
        const DeviceStream here = DeviceStream::current(written->device);
        here.wait(computed);
        ShardReport report = write(options, shard, progress);
        for (const NamedTensor& base : shard.bases)  // which stay as they are
          if (std::string& text = (*bases)[base.name]; text.empty()) {
            text = base_text(base.tensor);
            if (progress) progress();
          }
        report.bases = *bases;
        written->report = report.to_text();
        written->read = here.record();
      },
      options_.patience);
  if (!in_background) drain(limits);
}

void ShardKeeper::copy(Shard& shard, const WaitLimits& limits) const {
  const double start_us = now_us();
  limits.turn_to(Activity::saving);
  for (auto* list : {&shard.weights, &shard.optimizer, &shard.copies})
    for (NamedTensor& each : *list) {
      each.tensor = each.tensor.to(at::kCPU, each.tensor.scalar_type(), false, /*copy=*/true);
      limits.moved();
      limits.alive();
    }
  limits.turn_to(Activity::none);
  log_time(options_.log, shard.step, shard.bytes(), "copied", start_us);
}

ShardReport ShardKeeper::write(const ShardOptions& options, const Shard& shard, const FileProgress& progress) {
  const double start_us = now_us();
  const std::string folder = part_of(options.checkpoints, shard.step);
  std::error_code failure;
  fs::create_directories(folder, failure);  // the first row that comes makes it
  if (failure) throw Error(concat("checkpoint: cannot make ", folder, ": ", failure.message()));
  ShardReport report;
  report.step = shard.step;
  report.row = options.row;
  const auto put = [&](const char* kind, const std::vector<NamedTensor>& tensors) {
    if (tensors.empty()) return;
    const std::string name = shard_name(kind, options.row, options.rows);
    report.files.push_back(write_safetensors(folder, name, tensors, progress));
    if (report.not_finite.empty()) report.not_finite = report.files.back().not_finite;
  };
  put("model", shard.weights);
  put("optimizer", shard.optimizer);
  for (const NamedTensor& copy : shard.copies) report.copies[copy.name] = hash_of(copy.tensor);
  log_time(options.log, shard.step, shard.bytes(), "written", start_us);
  return report;
}

void ShardKeeper::drain(const WaitLimits& limits) {
  if (!writing_) return;
  writing_->wait(limits);
  writing_.reset();
  DeviceStream::current(written_->device).wait(written_->read);
  reports_.push_back(std::move(written_->report));
}

std::vector<std::string> ShardKeeper::take_reports() {
  if (writing_ && writing_->is_done()) drain({});
  return std::exchange(reports_, {});
}

// ---- row 0 ----

Publisher::Publisher(PublisherOptions options)
    : options_(std::move(options)),
      last_step_(options_.state.step),
      losses_(options_.state.losses),
      best_(options_.state.best) {
  clear_after(options_.checkpoints, last_step_, options_.resume_from);
  for (const CheckpointPlace& place : list_checkpoints(options_.checkpoints)) published_.insert(place.step);
  // One that has been removed by hand is no rival.
  if (best_ && !published_.count(best_->step)) best_.reset();
  if (!options_.best) return;
  point_to_best(options_.checkpoints, best_ ? best_->step : -1);
}

void Publisher::request(std::int64_t step, std::int64_t position) {
  Pending& pending = pending_[step];
  pending.state = options_.state;
  pending.state.step = step;
  pending.state.position = position;
  pending.state.best = best_;
  pending.has_result = options_.state.step >= step;
  last_step_ = step;
}

void Publisher::report(const std::vector<std::string>& shards) {
  for (const std::string& text : shards) {
    ShardReport shard = ShardReport::from_text(text);
    const auto pending = pending_.find(shard.step);
    LOCKSTEP_CHECK(pending != pending_.end(), "a shard of step ", shard.step, ", which nobody wanted");
    pending->second.reports.push_back(std::move(shard));
  }
}

void Publisher::finished(const StepResult& result, const PlateauState& plateau, const PlateauState& stopping,
                         const WaitLimits& limits) {
  options_.state.plateau = plateau;
  options_.state.stopping = stopping;
  if (result.non_finite.found() && !not_finite_) {
    not_finite_ = result.step;
    options_.log.warn(concat("step ", result.step, " was not finite: no checkpoint is published from here on"));
  }
  if (result.mode == Mode::evaluate) {
    if (const std::optional<StepResult> all = evaluation_.add(result)) evaluated(*all, limits);
    return;
  }
  options_.state.loss = result.loss();
  losses_ = options_.state.losses = losses_hash(losses_, result.loss());
  options_.state.step = result.step;
  if (!result.staleness.empty()) {  // several updates, which the optimizer has counted
    const std::int64_t of_parts = std::accumulate(result.staleness.begin(), result.staleness.end(), std::int64_t{0});
    options_.state.optimizer_after -= of_parts / options_.servers - 1;
  }
  for (auto& [step, pending] : pending_) {
    if (step != result.step) continue;
    pending.state.loss = options_.state.loss;
    pending.state.losses = losses_;
    pending.state.optimizer_after = options_.state.optimizer_after;
    pending.state.plateau = plateau;
    pending.state.stopping = stopping;
    pending.state.best = best_;
    pending.has_result = true;
  }
}

void Publisher::evaluated(const StepResult& evaluation, const WaitLimits& limits) {
  const std::int64_t step = evaluation.step;
  if (!options_.best || (!pending_.count(step) && !published_.count(step))) return;
  const double badness = options_.best->badness(evaluation), sign = options_.best->more_is_better ? -1 : 1;
  if (badness != badness || (best_ && sign * best_->value <= badness)) return;  // a NaN is never the best
  best_ = {step, sign * badness, options_.best->name};
  if (!published_.count(step)) return;  // the link comes with it
  start([folder = options_.checkpoints, step](const FileProgress&) { point_to_best(folder, step); }, limits);
}

/// Copies of tied parameters need no look: they have the hashes of those that were looked at.
bool Publisher::is_finite(std::int64_t step, const Pending& pending) {
  for (const ShardReport& report : pending.reports) {
    if (report.not_finite.empty() || (not_finite_ && *not_finite_ <= step)) continue;
    const std::string found = concat("checkpoint of step ", step, ": on worker ", report.row, " ", report.not_finite,
                                     ", though every loss and gradient was finite: no checkpoint is published from "
                                     "here on; lower the learning rate, or raise train.optimizer.eps");
    if (options_.stop_on_nan && !not_finite_) throw Error(found);
    not_finite_ = step;  // values of a later step may have told already
    options_.log.warn(found);
  }
  return !not_finite_ || step < *not_finite_;
}

void Publisher::advance(const WaitLimits& limits) {
  while (!pending_.empty()) {
    const auto first = pending_.begin();
    Pending& pending = first->second;
    const std::int64_t step = first->first;
    if (!pending.has_result || static_cast<int>(pending.reports.size()) < options_.rows) break;
    if (is_finite(step, pending))
      publish(std::move(pending), limits);
    else
      start([part = part_of(options_.checkpoints, step)](const FileProgress&) { fs::remove_all(part); }, limits);
    pending_.erase(first);
  }
  if (publication_ && publication_->is_done()) wait(limits);
}

void Publisher::publish(Pending pending, const WaitLimits& limits) {
  Manifest manifest;
  manifest.step = pending.state.step;
  std::map<std::string, std::uint64_t> hashes;
  for (const ShardReport& report : pending.reports)
    for (const WrittenFile& file : report.files) {
      manifest.shards[file.name] = file;
      if (file.name.starts_with("model-")) hashes.insert(file.tensors.begin(), file.tensors.end());
    }
  for (const ShardReport& report : pending.reports) manifest.bases.insert(report.bases.begin(), report.bases.end());
  for (const ShardReport& report : pending.reports)
    for (const auto& [name, hash] : report.copies) {
      const auto saved = hashes.find(name);
      if (saved == hashes.end() || saved->second != hash)
        throw InternalError(concat("checkpoint of step ", manifest.step, ": the copy of the tied parameter ", name,
                                   " on worker ", report.row, " differs from the first one"));
    }
  const bool is_adapter = !options_.adapter_config.empty();
  std::map<std::string, std::string> texts = {{kTrainerFile, pending.state.to_json()},
                                              {kDataFile, to_json(pending.state.data.value())}};
  texts[is_adapter ? kMergedConfig : "config.json"] = config_json();
  if (is_adapter) texts[kAdapterConfig] = options_.adapter_config;
  texts.insert(options_.companions.begin(), options_.companions.end());
  published_.insert(manifest.step);
  const bool is_best = best_ && best_->step == manifest.step;
  const std::int64_t spared = best_ ? best_->step : -1;
  const auto work = [folder = options_.checkpoints, keep = options_.keep, log = options_.log, manifest, texts, is_best,
                     spared, is_adapter](const FileProgress& progress) mutable {
    const std::string path = checkpoint_path(folder, manifest.step), part = part_of(folder, manifest.step);
    std::error_code failure;
    fs::create_directories(part, failure);  // when no row holds anything
    if (is_adapter) gather_adapter(part, manifest, progress);
    publish_checkpoint(part, path, manifest, texts, progress);
    if (is_best) point_to_best(folder, manifest.step);
    prune_checkpoints(folder, keep, spared, progress);
    log.info(concat("checkpoint of step ", manifest.step, ": ", path));
  };
  start(work, limits);
}

void Publisher::start(SaveTask::Work work, const WaitLimits& limits) {
  wait(limits);
  publication_ = std::make_unique<SaveTask>(std::move(work), options_.patience);
}

void Publisher::wait(const WaitLimits& limits) {
  if (!publication_) return;
  publication_->wait(limits);
  publication_.reset();
}

bool Publisher::is_busy(const WaitLimits& limits) {
  wait(limits);
  return !pending_.empty();
}

std::string Publisher::config_json() const {
  nlohmann::ordered_json json = {{"model_type", "lockstep"}};
  const std::string prefix = "model.";
  if (!options_.hub_config.empty()) {
    json = nlohmann::ordered_json::parse(options_.hub_config);
    json["torch_dtype"] = options_.torch_dtype;
  } else {
    for (const auto& [key, value] : options_.state.numerics)
      if (key.starts_with(prefix)) json["model"][key.substr(prefix.size())] = value;
  }
  return json.dump(2) + "\n";
}

}  // namespace lockstep
