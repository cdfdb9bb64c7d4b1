// SPDX-License-Identifier: Apache-2.0
//
// Folders of an adapter without its base, as Hugging Face's PEFT writes and reads them: adapter_config.json, which
// names the base, and adapter_model.safetensors, whose tensors are called as in the base's class with a prefix.
#pragma once

#include "runtime/checkpoint/manifest.hpp"
#include "runtime/layer/low_rank.hpp"

namespace lockstep {

inline constexpr const char* kAdapterFile = "adapter_model.safetensors";
inline constexpr const char* kAdapterConfig = "adapter_config.json";
/// Of a checkpoint: config.json of adapter and base together, which is not the base's where there is a new head. Under
/// another name, or the folder would be taken for a whole model.
inline constexpr const char* kMergedConfig = "merged_config.json";

bool is_adapter(const std::string& folder);

/// "h.0.attn.c_attn.lora_A.weight" -> "base_model.model.h.0.attn.c_attn.lora_A.weight"
std::string adapter_name(const std::string& parameter);
/// The other way round; CheckpointError at `file` when it is no such name.
std::string parameter_of(const std::string& file, const std::string& adapter_name);

struct AdapterInfo {
  std::string base;  ///< base_model_name_or_path: a folder
  std::int64_t rank = 1;
  double scale = 1;             ///< of every adapter
  bool fan_in_fan_out = false;  ///< weights that are adapted are [in, out]
};

/// Of a folder. Throws CheckpointError when the file is damaged, or says what is not computed here: another kind of
/// adapter (DoRA, AdaLoRA, ...), other ranks for some layers, trained biases.
AdapterInfo adapter_info(const std::string& folder);

/// adapter_config.json. `base`: a folder. `modules`: those that have an adapter, `saved`: those of modules_to_save, by
/// their full names, because PEFT takes any end of a name for these. `layout`: of the weights.
/// `hub_config`: config.json of the family, for the task; may be empty.
std::string adapter_config(const LowRankConfig& config, const std::string& base,
                           const std::vector<std::string>& modules, const std::vector<std::string>& saved,
                           WeightLayout layout, const std::string& hub_config);

/// One adapter file of what the workers have written of the weights into `folder`, in the place of their files.
void gather_adapter(const std::string& folder, Manifest& manifest, const FileProgress& progress);

/// "BFloat16 0123456789abcdef": what a tensor of a base is, for who wants to know whether it is still the same.
std::string base_text(const at::Tensor& tensor);
/// Throws CheckpointError unless `tensor`, `name` of the base at `base`, is what `text` says, in whichever precision
/// that was held.
void expect_base(const std::string& base, const std::string& name, const at::Tensor& tensor, const std::string& text);

}  // namespace lockstep
