// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/weight_files.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "runtime/base/text.hpp"
#include "runtime/checkpoint/adapter.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOneFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr std::int64_t kPieceBytes = 4 << 20;

/// As save_pretrained of a tokenizer and of a model call them.
constexpr std::array kCompanions = {"tokenizer.json",
                                    "tokenizer_config.json",
                                    "special_tokens_map.json",
                                    "added_tokens.json",
                                    "tokenizer.model",
                                    "vocab.json",
                                    "merges.txt",
                                    "vocab.txt",
                                    "chat_template.jinja",
                                    "generation_config.json"};

/// What to do about a folder without safetensors files.
std::string advice_for(const fs::path& folder) {
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "tf_model.h5"})
    if (fs::exists(folder / name))
      return concat("; it has ", name, ", which is not read: save it as safetensors, in Python: ",
                    "from_pretrained(DIR).save_pretrained(DIR2, safe_serialization=True)");
  if (const auto saved = list_checkpoints(checkpoints_of(folder)); !saved.empty())
    return concat("; it is a run folder: take one of its checkpoints, such as ", saved.back().path);
  return "";
}

/// The files that an index names.
std::set<std::string> files_of(const std::string& index) {
  using Json = nlohmann::json;
  try {
    std::set<std::string> files;
    const Json json = Json::parse(read_text(index));
    for (const auto& [tensor, file] : json.at("weight_map").items()) files.insert(file.get<std::string>());
    return files;
  } catch (const Json::exception& error) {
    throw CheckpointError(index, concat("is no index of safetensors files: ", error.what()));
  }
}

}  // namespace

std::map<std::string, std::string> companion_files(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const char* name : kCompanions)
    if (const fs::path path = fs::path(folder) / name; !folder.empty() && fs::is_regular_file(path))
      files[name] = read_text(path);
  return files;
}

WeightFiles::WeightFiles(std::string path, FileProgress progress, const std::string& base)
    : path_(std::move(path)), progress_(std::move(progress)) {
  if (!fs::exists(path_))
    throw CheckpointError(path_, concat("is not there (working folder: ", fs::current_path().string(), ")"));
  if (fs::is_directory(path_))
    open_folder(base);
  else
    open(path_);
  for (const auto& [name, place] : places_) names_.push_back(name);
  if (!base_) return;
  for (const std::string& name : base_->names())
    if (!places_.contains(name)) names_.push_back(name);
  std::sort(names_.begin(), names_.end());
}

void WeightFiles::place(const std::string& name, Place tensor) {
  tensor.entry.name = name;
  places_[name] = std::move(tensor);
}

void WeightFiles::open_adapter(const std::string& given) {
  const std::string base = given.empty() ? adapter_info(path_).base : given;
  if (base.empty())
    throw CheckpointError(
        path_ + "/" + kAdapterConfig,
        "names no base: base_model_name_or_path is null, because the base was made in memory, or drawn "
        "from a seed; set it to a folder of that base (lockstep export takes --base DIR)");
  if (given.empty() && !fs::exists(base))
    throw CheckpointError(path_ + "/" + kAdapterConfig,
                          concat("names the base '", base,
                                 "', which is not there; set base_model_name_or_path to its "
                                 "folder (of a model of a hub: download it first); lockstep export takes --base DIR"));
  if (fs::equivalent(base, path_))
    throw CheckpointError(path_ + "/" + kAdapterConfig, "names its own folder as the base");
  base_ = std::make_unique<WeightFiles>(base, progress_);
}

void WeightFiles::open_folder(const std::string& base) {
  if (is_adapter(path_)) open_adapter(base);
  if (fs::exists(path_ + "/" + kManifestFile)) {
    store_ = std::make_unique<CheckpointStore>(path_, progress_);
    for (const std::string& name : store_->names(TensorKind::weight))
      place(name, {nullptr, store_->entry(TensorKind::weight, name)});
  } else if (const std::string file = path_ + "/" + kAdapterFile; base_) {
    if (!fs::exists(file)) throw CheckpointError(path_, concat("has ", kAdapterConfig, ", but no ", kAdapterFile));
    open(file);
    for (const auto& [name, tensor] : std::exchange(places_, {})) place(parameter_of(file, name), tensor);
  } else if (fs::exists(path_ + "/" + kIndexFile)) {
    open_indexed(path_ + "/" + kIndexFile);
  } else if (fs::exists(path_ + "/" + kOneFile)) {
    open(path_ + "/" + kOneFile);
  } else {
    throw CheckpointError(
        path_, concat("has no ", kManifestFile, ", ", kIndexFile, " or ", kOneFile,
                      ": expected a checkpoint, a folder of safetensors files or one such file", advice_for(path_)));
  }
}

void WeightFiles::open_indexed(const std::string& index) {
  for (const std::string& file : files_of(index)) {
    if (fs::path(file).filename() != file)
      throw CheckpointError(index, concat("names the file '", file, "', expected one of its own folder"));
    if (!fs::exists(path_ + "/" + file))
      throw CheckpointError(index, concat("names the file ", file, ", which is not there; the folder is incomplete"));
    open(path_ + "/" + file);
  }
}

void WeightFiles::open(const std::string& file) {
  files_.push_back(std::make_unique<SafetensorsFile>(file, progress_));
  for (const TensorEntry& entry : files_.back()->entries())
    if (!places_.emplace(entry.name, Place{files_.back().get(), entry}).second)
      throw CheckpointError(file, entry.name, entry.begin, "is in another file of the folder too");
}

const TensorEntry* WeightFiles::find(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) return base_ ? base_->find(name) : nullptr;
  return &found->second.entry;
}

std::string WeightFiles::file_of(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end() && base_) return base_->file_of(name);
  return store_ ? store_->file_of_weight(name) : places_.at(name).file->path();
}

void WeightFiles::read(const std::string& name, const at::Tensor& to) {
  if (base_ && !places_.contains(name)) return base_->read(name, to);
  if (store_) return store_->read(TensorKind::weight, name, to);
  const auto& [file, entry] = places_.at(name);
  const bool casts =
      to.scalar_type() != entry.dtype && at::isFloatingType(to.scalar_type()) && at::isFloatingType(entry.dtype);
  if (!casts || to.sizes() != at::IntArrayRef(entry.sizes)) return file->read(entry, to);
  const auto element = static_cast<std::int64_t>(c10::elementSize(entry.dtype));
  const at::Tensor flat = to.view({-1}), piece = at::empty({kPieceBytes / element}, entry.dtype);
  for (std::int64_t done = 0; done < flat.numel(); done += piece.numel()) {
    const at::Tensor part = piece.narrow(0, 0, std::min(piece.numel(), flat.numel() - done));
    file->file().read(entry.begin + done * element, part.mutable_data_ptr(), part.nbytes());
    flat.narrow(0, done, part.numel()).copy_(part);
  }
}

bool WeightFiles::are_equal(const std::string& a, const std::string& b) const {
  if (base_ && !places_.contains(a) && !places_.contains(b)) return base_->are_equal(a, b);
  if (!places_.contains(a) || !places_.contains(b)) return false;
  const Place &one = places_.at(a), &other = places_.at(b);
  if (one.entry.dtype != other.entry.dtype || one.entry.sizes != other.entry.sizes) return false;
  if (store_) return false;  // a checkpoint has each once
  const std::int64_t bytes = one.entry.end - one.entry.begin;
  std::vector<char> ours(static_cast<std::size_t>(std::min(bytes, kPieceBytes))), theirs(ours.size());
  for (std::int64_t done = 0; done < bytes; done += kPieceBytes) {
    const auto count = static_cast<std::size_t>(std::min(kPieceBytes, bytes - done));
    one.file->file().read(one.entry.begin + done, ours.data(), count);
    other.file->file().read(other.entry.begin + done, theirs.data(), count);
    if (std::memcmp(ours.data(), theirs.data(), count) != 0) return false;
  }
  return true;
}

}  // namespace lockstep
