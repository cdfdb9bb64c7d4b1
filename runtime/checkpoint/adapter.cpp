// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/adapter.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/base/text.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::string_view kPrefix = "base_model.model.";

/// What PEFT calls the task of a class of transformers.
Json task_of(const std::string& hub_config) {
  if (hub_config.empty()) return nullptr;
  const Json config = Json::parse(hub_config);
  const auto name = config.value("architectures", std::vector<std::string>{""}).front();
  if (name.ends_with("ForSequenceClassification")) return "SEQ_CLS";
  return name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel") ? Json("CAUSAL_LM") : Json(nullptr);
}

/// What of LoRA's variants is not computed here: the key, and the value without it.
const std::vector<std::pair<const char*, Json>>& plain() {
  static const std::vector<std::pair<const char*, Json>> keys = {{"peft_type", "LORA"},
                                                                 {"use_dora", false},
                                                                 {"use_qalora", false},
                                                                 {"lora_bias", false},
                                                                 {"bias", "none"},
                                                                 {"rank_pattern", {}},
                                                                 {"alpha_pattern", {}},
                                                                 {"layers_to_transform", nullptr},
                                                                 {"use_bdlora", nullptr},
                                                                 {"kasa_config", nullptr},
                                                                 {"layer_replication", nullptr},
                                                                 {"target_parameters", nullptr},
                                                                 {"trainable_token_indices", nullptr}};
  return keys;
}

}  // namespace

bool is_adapter(const std::string& folder) {
  return fs::is_regular_file(fs::path(folder) / kAdapterConfig);
}

std::string adapter_name(const std::string& parameter) {
  return std::string(kPrefix) + parameter;
}

std::string parameter_of(const std::string& file, const std::string& adapter_name) {
  if (!adapter_name.starts_with(kPrefix))
    throw CheckpointError(file, adapter_name, -1, concat("is no tensor of an adapter, which begins with ", kPrefix));
  return adapter_name.substr(kPrefix.size());
}

AdapterInfo adapter_info(const std::string& folder) {
  const std::string path = folder + "/" + kAdapterConfig;
  try {
    const Json json = Json::parse(read_text(path));
    for (const auto& [key, only] : plain())
      if (const Json got = json.value(key, only); got != only && !(got.empty() && only.empty()))
        throw CheckpointError(path, concat(key, " is ", got.dump(), ", expected ", only.dump(),
                                           ": nothing else of PEFT is computed here"));
    AdapterInfo info;
    const Json& base = json.at("base_model_name_or_path");
    if (base.is_string()) info.base = base.get<std::string>();
    info.rank = json.at("r").get<std::int64_t>();
    const auto rank = static_cast<double>(info.rank);
    info.scale = json.at("lora_alpha").get<double>() / (json.value("use_rslora", false) ? std::sqrt(rank) : rank);
    info.fan_in_fan_out = json.value("fan_in_fan_out", false);
    return info;
  } catch (const Json::exception& error) {
    throw CheckpointError(path, concat("is no description of an adapter: ", error.what()));
  }
}

std::string adapter_config(const LowRankConfig& config, const std::string& base,
                           const std::vector<std::string>& modules, const std::vector<std::string>& saved,
                           WeightLayout layout, const std::string& hub_config) {
  const bool all = std::find(config.targets.begin(), config.targets.end(), kAllLinear) != config.targets.end();
  Json json = {{"peft_type", "LORA"},
               {"task_type", task_of(hub_config)},
               {"base_model_name_or_path", base.empty() ? Json(nullptr) : Json(fs::absolute(base).lexically_normal())},
               {"r", config.rank},
               {"lora_alpha", config.alpha},
               {"lora_dropout", config.dropout},
               {"use_rslora", config.rank_stabilized},
               {"bias", "none"},
               {"fan_in_fan_out", layout == WeightLayout::in_out},
               {"inference_mode", true},
               {"target_modules", all ? modules : config.targets},
               {"modules_to_save", saved.empty() ? Json(nullptr) : Json(saved)}};
  return json.dump(2) + "\n";
}

void gather_adapter(const std::string& folder, Manifest& manifest, const FileProgress& progress) {
  std::vector<NamedTensor> tensors;
  std::vector<std::string> gathered;
  for (const auto& [name, shard] : manifest.shards) {
    if (!name.starts_with("model-")) continue;
    const SafetensorsFile file(folder + "/" + name, progress);
    for (const TensorEntry& entry : file.entries()) {
      tensors.push_back({adapter_name(entry.name), at::empty(entry.sizes, at::TensorOptions(entry.dtype))});
      file.read(entry, tensors.back().tensor);
    }
    gathered.push_back(name);
  }
  manifest.shards[kAdapterFile] = write_safetensors(folder, kAdapterFile, tensors, progress);
  for (const std::string& name : gathered) {
    fs::remove(folder + "/" + name);
    manifest.shards.erase(name);
  }
}

std::string base_text(const at::Tensor& tensor) {
  return concat(c10::toString(tensor.scalar_type()), " ", hex(hash_of(tensor)));
}

void expect_base(const std::string& base, const std::string& name, const at::Tensor& tensor, const std::string& text) {
  for (const at::ScalarType held : {at::kFloat, at::kDouble, at::kBFloat16})
    if (text.starts_with(concat(c10::toString(held), " ")) && text != base_text(tensor.to(held)))
      throw CheckpointError(base, name, -1, "is not what the adapter was trained on: this is another base");
}

}  // namespace lockstep
