// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/merge.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/new_folder.hpp"
#include "runtime/base/text.hpp"
#include "runtime/checkpoint/adapter.hpp"
#include "runtime/checkpoint/weight_files.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostBytes = std::int64_t{4} << 30;  // of a file

/// Its tensors by the names of the model.
std::map<std::string, at::Tensor> tensors_of(const std::string& folder, bool averaged) {
  std::map<std::string, at::Tensor> tensors;
  if (fs::exists(folder + "/" + kManifestFile)) {
    if (const std::vector<std::string> damage = find_damage(folder); !damage.empty())
      throw UserError(concat(damage.front(), other_good_checkpoint(folder)));
    const MappedWeights weights(CheckpointStore(folder), averaged);
    for (const NamedTensor& each : weights.tensors()) tensors[each.name] = each.tensor.clone();
    return tensors;
  }
  if (averaged) throw CheckpointError(folder, "has no averages of its weights: it is no checkpoint");
  const SafetensorsFile file(folder + "/" + kAdapterFile);
  for (const TensorEntry& entry : file.entries()) {
    at::Tensor& to = tensors[parameter_of(file.path(), entry.name)];
    to = at::empty(entry.sizes, at::TensorOptions(entry.dtype));
    file.read(entry, to);
  }
  return tensors;
}

class Merge {
 public:
  Merge(const std::string& folder, const std::string& base, bool averaged)
      : folder_(folder), info_(adapter_info(folder)), base_(base.empty() ? WeightFiles(folder).base_path() : base) {
    for (auto& [name, tensor] : tensors_of(folder, averaged)) place(name, tensor);
    if (fs::exists(folder_ + "/" + kManifestFile))
      for (const auto& [name, text] : read_manifest(folder_).bases) known_[in_base(name)] = text;
    for (const auto& [name, pair] : pairs_)
      if (!pair.a.defined() || !pair.b.defined())
        throw CheckpointError(folder_, name, -1, "has only one of lora_A and lora_B in the adapter");
  }

  MergedModel write(const std::string& output) {
    const std::vector<std::vector<std::string>> files = in_files();
    MergedModel merged{base_.path(), static_cast<std::int64_t>(pairs_.size())};
    nlohmann::ordered_json map = nlohmann::ordered_json::object();
    for (std::size_t i = 0; i < files.size(); ++i) {
      const std::string name = name_of(i, files.size());
      std::vector<NamedTensor> tensors;
      for (const std::string& tensor : files[i]) {
        tensors.push_back({tensor, value_of(tensor), /*may_be_infinite=*/true});
        merged.bytes += static_cast<std::int64_t>(tensors.back().tensor.nbytes());
        map[tensor] = name;
      }
      merged.tensors += static_cast<std::int64_t>(tensors.size());
      write_safetensors(output, name, tensors);
    }
    if (files.size() > 1)
      write_text(
          output + "/model.safetensors.index.json",
          nlohmann::ordered_json{{"metadata", {{"total_size", merged.bytes}}}, {"weight_map", map}}.dump(2) + "\n");
    for (const auto& [name, text] : companion_files(base_.path())) write_text(output + "/" + name, text);
    if (const std::string text = config(); !text.empty()) write_text(output + "/config.json", text);
    sync_folder(output);
    return merged;
  }

 private:
  struct Pair {
    at::Tensor a, b;
  };

  /// What the base calls a parameter, which may lack a prefix of its class; empty: nothing.
  std::string in_base(const std::string& parameter) const {
    for (std::size_t begin = 0; begin < parameter.size();) {
      const std::string rest = parameter.substr(begin);
      if (base_.find(rest)) return rest;
      const std::size_t dot = parameter.find('.', begin);
      begin = dot == std::string::npos ? dot : dot + 1;
    }
    return "";
  }

  void place(const std::string& name, const at::Tensor& tensor) {
    const bool is_a = name.ends_with(LowRank::first_of("")), is_b = name.ends_with(LowRank::second_of(""));
    if (!is_a && !is_b) {  // a new head may be in the adapter alone
      if (name.find(".lora_") != std::string::npos)
        throw CheckpointError(folder_, name, -1, "is of an adapter of no linear part, which is not merged here");
      const std::string there = in_base(name);
      replaced_[there.empty() ? name : there] = tensor;
      return;
    }
    const std::string weight = module_of(module_of(name)) + ".weight", there = in_base(weight);
    if (there.empty())
      throw CheckpointError(folder_, name, -1, concat("is of ", weight, ", which the base ", base_.path(), " has not"));
    (is_a ? pairs_[there].a : pairs_[there].b) = tensor;
  }

  std::vector<std::vector<std::string>> in_files() const {
    std::vector<std::string> names = base_.names();
    for (const auto& [name, tensor] : replaced_)
      if (!base_.find(name)) names.push_back(name);
    std::vector<std::vector<std::string>> files(1);
    std::int64_t bytes = 0;
    for (const std::string& name : names) {
      const TensorEntry* entry = base_.find(name);
      const std::int64_t more = entry ? entry->end - entry->begin : 0;
      if (bytes > 0 && bytes + more > kMostBytes) {
        files.emplace_back();
        bytes = 0;
      }
      bytes += more;
      files.back().push_back(name);
    }
    return files;
  }

  static std::string name_of(std::size_t file, std::size_t files) {
    if (files == 1) return "model.safetensors";
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "model-%05zu-of-%05zu.safetensors", file + 1, files);
    return text.data();
  }

  at::Tensor value_of(const std::string& name) {
    const TensorEntry* entry = base_.find(name);
    if (const auto instead = replaced_.find(name); instead != replaced_.end())
      return entry ? instead->second.to(entry->dtype) : instead->second;
    at::Tensor value = at::empty(entry->sizes, at::TensorOptions(entry->dtype));
    base_.read(name, value);
    check_base(name, value);
    const auto pair = pairs_.find(name);
    if (pair == pairs_.end()) return value;
    const at::ScalarType in = entry->dtype == at::kDouble ? at::kDouble : at::kFloat;
    at::Tensor more = at::mm(pair->second.b.to(in), pair->second.a.to(in)) * info_.scale;
    if (info_.fan_in_fan_out) more = more.t();
    if (more.sizes() != value.sizes())
      throw CheckpointError(
          folder_, name, -1,
          concat("[", join(value.sizes()), "] in the base has an adapter of [", join(more.sizes()), "]"));
    return (value.to(in) + more).to(entry->dtype).contiguous();
  }

  /// A checkpoint knows what its adapter was trained on.
  void check_base(const std::string& name, const at::Tensor& value) const {
    if (const auto known = known_.find(name); known != known_.end())
      expect_base(base_.path(), name, value, known->second);
  }

  /// The base's, unless it is of another head.
  std::string config() const {
    const std::string ours = folder_ + "/" + kMergedConfig, bases = base_.path() + "/config.json";
    const bool as_base = std::all_of(replaced_.begin(), replaced_.end(), [&](const auto& each) {
      const TensorEntry* entry = base_.find(each.first);
      return entry && each.second.sizes() == at::IntArrayRef(entry->sizes);
    });
    const std::string& file = !as_base && fs::is_regular_file(ours) ? ours : bases;
    return fs::is_regular_file(file) ? read_text(file) : "";
  }

  std::string folder_;
  AdapterInfo info_;
  WeightFiles base_;
  std::map<std::string, Pair> pairs_;           // by the base's name of the weight
  std::map<std::string, at::Tensor> replaced_;  // or added
  std::map<std::string, std::string> known_;    // base_text() by the base's name
};

}  // namespace

MergedModel merge_adapter(const std::string& folder, const std::string& output, const std::string& base,
                          bool averaged) {
  if (!fs::is_directory(folder)) throw CheckpointError(folder, "there is no such folder");
  if (!is_adapter(folder)) {
    const std::vector<CheckpointPlace> saved = list_checkpoints(checkpoints_of(folder));
    throw CheckpointError(folder, concat("is no adapter: it has no ", kAdapterConfig,
                                         saved.empty() ? "; a checkpoint of a whole model needs no merging"
                                                       : "; it is a run folder: take " + saved.back().path));
  }
  const at::NoGradGuard no_grad;
  Merge merge(folder, base, averaged);
  NewFolder made("--out", output);
  const MergedModel merged = merge.write(made.part());
  made.publish();
  return merged;
}

}  // namespace lockstep
