// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/merge.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

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
    if (const std::string config = base_.path() + "/config.json"; fs::is_regular_file(config))
      write_text(output + "/config.json", read_text(config));
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

  std::string folder_;
  AdapterInfo info_;
  WeightFiles base_;
  std::map<std::string, Pair> pairs_;           // by the base's name of the weight
  std::map<std::string, at::Tensor> replaced_;  // or added
};

}  // namespace

MergedModel merge_adapter(const std::string& folder, const std::string& output, const std::string& base,
                          bool averaged) {
  if (!fs::is_directory(folder)) throw CheckpointError(folder, "there is no such folder");
  if (!is_adapter(folder))
    throw CheckpointError(folder, concat("is no adapter: it has no ", kAdapterConfig,
                                         "; a checkpoint of a whole model needs no merging"));
  if (fs::exists(output)) throw UserError(concat("--out: ", output, " is there already; remove it or choose another"));
  const at::NoGradGuard no_grad;
  Merge merge(folder, base, averaged);
  const std::string part = (fs::path(output) / "").parent_path().string() + ".part";
  try {
    std::error_code failure;
    fs::remove_all(part, failure);
    fs::create_directories(part, failure);
    if (failure) throw UserError(concat("--out: cannot make ", part, ": ", failure.message()));
    const MergedModel merged = merge.write(part);
    fs::rename(part, output);
    return merged;
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(part, ignored);
    throw;
  }
}

}  // namespace lockstep
