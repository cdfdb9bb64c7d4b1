// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/store.hpp"

#include <ATen/ops/from_blob.h>

#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {

CheckpointStore::CheckpointStore(std::string checkpoint, FileProgress progress)
    : path_(std::move(checkpoint)), progress_(std::move(progress)), manifest_(read_manifest(path_)) {
  for (const auto& [name, shard] : manifest_.shards)
    for (const auto& [tensor, hash] : shard.tensors)
      if (!(name.starts_with("model-") ? weights_ : optimizer_).emplace(tensor, Place{name, hash}).second)
        throw CheckpointError(path_ + "/" + kManifestFile, tensor, -1, "is in two files");
}

bool CheckpointStore::has(TensorKind kind, const std::string& name) const {
  return (kind == TensorKind::weight ? weights_ : optimizer_).count(name) > 0;
}

std::vector<std::string> CheckpointStore::names(TensorKind kind) const {
  std::vector<std::string> names;
  for (const auto& [name, place] : kind == TensorKind::weight ? weights_ : optimizer_) names.push_back(name);
  return names;
}

const CheckpointStore::Place& CheckpointStore::place(TensorKind kind, const std::string& name) const {
  const auto& places = kind == TensorKind::weight ? weights_ : optimizer_;
  const auto found = places.find(name);
  if (found == places.end())
    throw CheckpointError(path_, name, -1,
                          concat("is in none of its ", kind == TensorKind::weight ? "model" : "optimizer",
                                 " files; it is a checkpoint of another model or optimizer"));
  return found->second;
}

SafetensorsFile& CheckpointStore::file(const std::string& name) {
  std::unique_ptr<SafetensorsFile>& file = files_[name];
  if (!file) file = std::make_unique<SafetensorsFile>(path_ + "/" + name, progress_);
  return *file;
}

const TensorEntry& CheckpointStore::entry(TensorKind kind, const std::string& name) {
  const SafetensorsFile& shard = file(place(kind, name).file);
  const TensorEntry* entry = shard.find(name);
  if (!entry) throw CheckpointError(shard.path(), name, -1, "is missing");
  return *entry;
}

void CheckpointStore::read(TensorKind kind, const std::string& name, const at::Tensor& to) {
  const TensorEntry& where = entry(kind, name);
  const Place& known = place(kind, name);
  const SafetensorsFile& shard = file(known.file);
  const bool converts =
      to.scalar_type() != where.dtype && at::isFloatingType(to.scalar_type()) && at::isFloatingType(where.dtype);
  const at::Tensor stored = converts ? at::empty(where.sizes, where.dtype) : to;
  shard.read(where, stored);
  if (const std::string damage = damage_of(stored, known.hash); !damage.empty())
    throw CheckpointError(shard.path(), name, where.begin, damage);
  if (converts) to.copy_(stored);
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
  for (const auto& [name, shard] : store.manifest().shards)
    if (averaged && name.starts_with("optimizer-"))
      for (const NamedTensor& each : map(store.path() + "/" + name)) averages[each.name] = each.tensor;
  for (const auto& [name, shard] : store.manifest().shards) {
    if (!name.starts_with("model-")) continue;
    for (NamedTensor& each : map(store.path() + "/" + name)) {
      const auto average = averages.find(CheckpointStore::average_of(each.name));
      if (average != averages.end()) each.tensor = average->second;
      tensors_.push_back(std::move(each));
    }
  }
}

}  // namespace lockstep
