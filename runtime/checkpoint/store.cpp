// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/store.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <utility>

#include "runtime/checkpoint/adapter.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {

std::string name_of_part(const std::string& name, const ElementRange& part) {
  return concat(name, "[", part.begin, ":", part.end, "]");
}

namespace {

/// Undoes name_of_part(); of any other name there is no part.
std::pair<std::string, std::optional<ElementRange>> split_name(const std::string& name) {
  ElementRange part;
  const std::size_t bracket = name.rfind('[');
  if (bracket != std::string::npos &&
      std::sscanf(name.c_str() + bracket, "[%" SCNd64 ":%" SCNd64 "]", &part.begin, &part.end) == 2 &&
      name_of_part(name.substr(0, bracket), part) == name)
    return {name.substr(0, bracket), part};
  return {name, std::nullopt};
}

/// By where each begins in the whole.
using Parts = std::map<std::int64_t, at::Tensor>;

at::Tensor joined(const Parts& parts) {
  std::vector<at::Tensor> ascending;
  for (const auto& [begin, tensor] : parts) ascending.push_back(tensor);
  return at::cat(ascending);
}

}  // namespace

CheckpointStore::CheckpointStore(std::string checkpoint, FileProgress progress)
    : path_(std::move(checkpoint)), progress_(std::move(progress)), manifest_(read_manifest(path_)) {
  for (const auto& [file, shard] : manifest_.shards)
    for (const auto& [tensor, hash] : shard.tensors) {
      if (file.starts_with("model-")) {
        const auto [name, part] = split_name(tensor);
        weights_[name].push_back({file, tensor, hash, part});
      } else if (file == kAdapterFile) {
        weights_[parameter_of(path_ + "/" + file, tensor)].push_back({file, tensor, hash});
      } else {
        const auto [name, part] = split_name(tensor);
        optimizer_[name].push_back({file, tensor, hash, part});
      }
    }
  for (auto* tensors : {&weights_, &optimizer_})
    for (auto& [name, places] : *tensors) {
      std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
        return a.part && b.part ? a.part->begin < b.part->begin : !a.part && b.part;
      });
      for (std::size_t i = 1; i < places.size(); ++i)
        if (!places[i - 1].part || places[i - 1].part->end > places[i].part->begin)
          throw CheckpointError(path_ + "/" + kManifestFile, name, -1, "is in two files");
    }
}

bool CheckpointStore::has(TensorKind kind, const std::string& name) const {
  return (kind == TensorKind::weight ? weights_ : optimizer_).count(name) > 0;
}

std::vector<std::string> CheckpointStore::names(TensorKind kind) const {
  std::vector<std::string> names;
  for (const auto& [name, places] : kind == TensorKind::weight ? weights_ : optimizer_) names.push_back(name);
  return names;
}

const CheckpointStore::Places& CheckpointStore::places(TensorKind kind, const std::string& name) const {
  const auto& all = kind == TensorKind::weight ? weights_ : optimizer_;
  const auto found = all.find(name);
  if (found == all.end())
    throw CheckpointError(path_, name, -1,
                          concat("is in none of its ", kind == TensorKind::weight ? "model" : "optimizer",
                                 " files; it is a checkpoint of another model or optimizer"));
  return found->second;
}

std::string CheckpointStore::file_of_weight(const std::string& name) const {
  return path_ + "/" + places(TensorKind::weight, name).front().file;
}

SafetensorsFile& CheckpointStore::file(const std::string& name) {
  std::unique_ptr<SafetensorsFile>& file = files_[name];
  if (!file) file = std::make_unique<SafetensorsFile>(path_ + "/" + name, progress_);
  return *file;
}

const TensorEntry& CheckpointStore::entry(const Place& place) {
  const SafetensorsFile& shard = file(place.file);
  const TensorEntry* entry = shard.find(place.name);
  if (!entry) throw CheckpointError(shard.path(), place.name, -1, "is missing");
  return *entry;
}

TensorEntry CheckpointStore::entry(TensorKind kind, const std::string& name) {
  const Places& parts = places(kind, name);
  if (!parts.front().part) return entry(parts.front());
  // A table is in parts by rows, and so is what is kept beside it; else what is kept in parts has an element for each
  // of its parameter's.
  TensorEntry whole;
  whole.name = name;
  whole.dtype = entry(parts.front()).dtype;
  const std::string weight = kind == TensorKind::weight ? name : name.substr(0, name.rfind('.'));
  if (places(TensorKind::weight, weight).front().part) {
    whole.sizes = entry(parts.front()).sizes;
    whole.sizes.at(0) = 0;
    for (const Place& place : parts) whole.sizes.at(0) += entry(place).sizes.at(0);
  } else {
    whole.sizes = entry(TensorKind::weight, weight).sizes;
  }
  std::int64_t next = 0;
  for (const Place& place : parts) {
    if (place.part->begin != next) break;
    next = place.part->end;
  }
  if (next != c10::multiply_integers(whole.sizes))
    throw CheckpointError(path_, name, -1,
                          concat("is in parts, of which the one that begins at element ", next, " is missing"));
  return whole;
}

void CheckpointStore::read(const Place& place, const at::Tensor& to) {
  const SafetensorsFile& shard = file(place.file);
  const TensorEntry& where = entry(place);
  const bool converts =
      to.scalar_type() != where.dtype && at::isFloatingType(to.scalar_type()) && at::isFloatingType(where.dtype);
  const at::Tensor stored = converts ? at::empty(where.sizes, where.dtype) : to;
  shard.read(where, stored);
  if (const std::string damage = damage_of(stored, place.hash); !damage.empty())
    throw CheckpointError(shard.path(), place.name, where.begin, damage);
  if (converts) to.copy_(stored);
}

void CheckpointStore::read(TensorKind kind, const std::string& name, const at::Tensor& to,
                           const std::optional<ElementRange>& part) {
  const Places& all = places(kind, name);
  if (!part && !all.front().part) return read(all.front(), to);
  const TensorEntry whole = entry(kind, name);  // with all of its parts
  const ElementRange wanted = part.value_or(ElementRange{0, c10::multiply_integers(whole.sizes)});
  if (to.numel() != wanted.count() || wanted.end > c10::multiply_integers(whole.sizes))
    throw CheckpointError(path_, name, -1,
                          concat("is ", to_string(whole), ", expected elements ", wanted.begin, " to ", wanted.end));
  const at::Tensor flat = to.view({-1});
  for (const Place& place : all) {
    const TensorEntry& where = entry(place);
    const ElementRange has = place.part.value_or(ElementRange{0, c10::multiply_integers(where.sizes)});
    const ElementRange both{std::max(has.begin, wanted.begin), std::min(has.end, wanted.end)};
    if (both.begin >= both.end) continue;
    const at::Tensor into = flat.narrow(0, both.begin - wanted.begin, both.count());
    if (place.part && both.count() == has.count()) {
      read(place, into.view(where.sizes));
    } else {  // the hash is that of all of it
      const at::Tensor all_of_it = at::empty(where.sizes, where.dtype);
      read(place, all_of_it);
      into.copy_(all_of_it.view({-1}).narrow(0, both.begin - has.begin, both.count()));
    }
  }
}

std::string CheckpointStore::text(const std::string& name) const {
  std::string content = read_text(path_ + "/" + name);
  const auto known = manifest_.texts.find(name);
  if (known == manifest_.texts.end() || hash_of(content) != known->second.hash)
    throw CheckpointError(path_ + "/" + name, "was altered");
  return content;
}

void CheckpointStore::require_averages() const {
  for (const std::string& weight : names(TensorKind::weight))
    if (has_average(weight)) return;
  throw CheckpointError(path_, "has no averages of its weights: it was trained without train.ema");
}

std::vector<NamedTensor> MappedWeights::map(const std::string& path) {
  const auto& file = *files_.emplace_back(std::make_unique<SafetensorsFile>(path));
  const auto& mapped = *mapped_.emplace_back(std::make_unique<MappedFile>(file.file()));
  std::vector<NamedTensor> tensors;
  for (const TensorEntry& entry : file.entries()) {
    void* data = const_cast<char*>(mapped.data() + entry.begin);
    tensors.push_back({entry.name, at::from_blob(data, entry.sizes, at::TensorOptions(entry.dtype))});
  }
  return tensors;
}

MappedWeights::MappedWeights(const CheckpointStore& store, bool averaged) {
  if (averaged) store.require_averages();
  std::map<std::string, at::Tensor> averages;
  std::map<std::string, Parts> in_parts;
  for (const auto& [name, shard] : store.manifest().shards)
    if (averaged && name.starts_with("optimizer-"))
      for (const NamedTensor& each : map(store.path() + "/" + name)) {
        const auto [whole, part] = split_name(each.name);
        if (part)
          in_parts[whole][part->begin] = each.tensor;
        else
          averages[whole] = each.tensor;
      }
  for (const auto& [name, parts] : in_parts) averages[name] = joined(parts);
  std::map<std::string, Parts> tables;
  for (const auto& [name, shard] : store.manifest().shards) {
    if (!name.starts_with("model-") && name != kAdapterFile) continue;
    for (NamedTensor& each : map(store.path() + "/" + name)) {
      if (name == kAdapterFile) each.name = parameter_of(name, each.name);
      if (const auto [whole, part] = split_name(each.name); part) {
        tables[whole][part->begin] = each.tensor;
        continue;
      }
      const auto average = averages.find(CheckpointStore::average_of(each.name));
      if (average != averages.end()) each.tensor = average->second.view(each.tensor.sizes());
      tensors_.push_back(std::move(each));
    }
  }
  for (const auto& [name, parts] : tables) tensors_.push_back({name, joined(parts)});
}

}  // namespace lockstep
