// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/model_record.hpp"

#include <filesystem>
#include <optional>

#include "runtime/config/config.hpp"
#include "runtime/config/field.hpp"
#include "runtime/layer/dtype_names.hpp"

namespace lockstep {
namespace {

constexpr const char* kModel = "model";
constexpr const char* kPlugins = "plugins";
constexpr const char* kInputs = "inputs";

yaml::Value mapping(std::vector<std::pair<std::string, yaml::Value>> entries) {
  yaml::Value all;
  all.kind = yaml::Value::Kind::mapping;
  for (auto& [key, value] : entries) all.entries.push_back({key, false, {}, std::move(value)});
  return all;
}

}  // namespace

std::string model_record(const Assembly& assembly) {
  const ModelGraph& graph = assembly.graph;
  yaml::Value inputs;
  inputs.kind = yaml::Value::Kind::sequence;
  for (const int source : graph.sources) {
    const auto& [spec, producer, requires_grad, uses] = graph.values[static_cast<std::size_t>(source)];
    if (uses.empty() || uses.front().layer >= graph.layer_count()) continue;  // losses alone read it
    const char* type = dtype_name(spec.dtype);
    if (!type) continue;  // nobody outside has such tensors
    const std::vector<std::int64_t> of_row(spec.sizes.begin() + 1, spec.sizes.end());
    inputs.items.push_back(mapping(
        {{"name", scalar_value(text_of(spec.name))}, {"type", scalar_value(type)}, {"sizes", list_value(of_row)}}));
  }
  std::vector<std::pair<std::string, yaml::Value>> entries;
  const Config& config = assembly.config;
  std::vector<std::string> plugins;  // wherever somebody stands who reads this
  for (const std::string& plugin : config.plugins) plugins.push_back(std::filesystem::absolute(plugin));
  if (!plugins.empty()) entries.emplace_back(kPlugins, list_value(plugins));
  if (!config.model.keys().empty()) entries.emplace_back(kModel, config.model.value());
  entries.emplace_back(kInputs, std::move(inputs));
  return yaml::to_text(mapping(std::move(entries)));
}

ModelRecord model_record_of(const CheckpointStore& store) {
  const std::string file = store.path() + "/" + kModelFile;
  if (!store.manifest().texts.contains(kModelFile))
    throw CheckpointError(store.path(), concat("has no ", kModelFile,
                                               ": it was written before checkpoints said what their models read; go on "
                                               "from it for a step or more, and take the checkpoint that this writes"));
  const std::string text = store.text(kModelFile);
  try {
    ModelRecord record;
    record.root = load_config_text(text, file);
    record.plugins = record.root.get(kPlugins, std::vector<std::string>());
    for (const Section& input : record.root.sections(kInputs)) {
      const auto type = input.get<std::string>("type");
      const std::optional<at::ScalarType> dtype = find_dtype(type);
      if (!dtype) throw input.error("type", concat("got ", type, ", expected a dtype such as float32"));
      EntrySpec spec{input.get<std::string>("name"), *dtype, {1}, /*differentiable=*/false};
      for (const std::int64_t size : input.list("sizes", {}, at_least<std::int64_t>(1))) spec.sizes.push_back(size);
      record.inputs.push_back(std::move(spec));
    }
    return record;
  } catch (const ConfigError& error) {
    throw CheckpointError(file, concat("is damaged: ", error.what()));
  }
}

}  // namespace lockstep
