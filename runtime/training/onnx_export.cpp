// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/onnx_export.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "runtime/base/new_folder.hpp"
#include "runtime/checkpoint/adapter.hpp"
#include "runtime/checkpoint/weight_files.hpp"
#include "runtime/graph/model_graph.hpp"
#include "runtime/layer/dtype_names.hpp"
#include "runtime/layer/onnx_graph.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelName = "model.onnx";
constexpr const char* kConfigName = "config.json";
constexpr const char* kAveragesName = "averages.safetensors";
constexpr const char* kTablesName = "tables.safetensors";
constexpr const char* kBatch = "batch";

/// The value that an entry is at the end of the model.
int value_at_end(const ModelGraph& graph, const std::string& entry) {
  for (std::size_t id = graph.values.size(); id-- > 0;)
    if (graph.values[id].spec.name == entry) return static_cast<int>(id);
  throw ModelError(concat("a loss reads '", entry, "', which nothing writes"));
}

at::ScalarType onnx_dtype(at::ScalarType dtype) {
  return at::isFloatingType(dtype) ? at::kFloat : dtype;
}

/// A size that inputs share, and that may be another one.
struct OpenSize {
  std::size_t dimension = 0;
  std::int64_t size = 0, other = 0;
  std::string name;
  ModelGraph otherwise;  ///< the model where it is `other`
};

/// Which sizes are open is asked of the model: it is described again with others.
class OpenSizes {
 public:
  OpenSizes(const Model& model, const std::vector<EntrySpec>& inputs) : model_(model), inputs_(inputs) {
    for (const EntrySpec& input : inputs)
      for (std::size_t d = 1; d < input.sizes.size(); ++d)
        if (!find(d, input.sizes[d])) look_at(d, input.sizes[d], input.sizes.size());
  }

  OnnxEntry of_input(const EntrySpec& input) const {
    OnnxEntry entry{input.name, onnx_dtype(input.dtype), {kBatch}};
    for (std::size_t d = 1; d < input.sizes.size(); ++d) {
      const OpenSize* open = find(d, input.sizes[d]);
      if (open)
        entry.sizes.emplace_back(open->name);
      else
        entry.sizes.emplace_back(input.sizes[d]);
    }
    return entry;
  }

  /// A size that follows from an open one has its name where the two are equal, else none.
  OnnxEntry of_output(const std::string& name, int value, const EntrySpec& output) const {
    OnnxEntry entry{name, onnx_dtype(output.dtype), {}};
    for (std::size_t d = 0; d < output.sizes.size(); ++d) {
      std::variant<std::int64_t, std::string> size = output.sizes[d];
      if (d == 0 && output.batched) size = kBatch;
      for (const OpenSize& open : all_) {
        const std::int64_t otherwise = open.otherwise.values[static_cast<std::size_t>(value)].spec.sizes[d];
        if (otherwise == output.sizes[d]) continue;
        size = output.sizes[d] == open.size && otherwise == open.other ? open.name : "";
      }
      entry.sizes.push_back(std::move(size));
    }
    return entry;
  }

 private:
  const OpenSize* find(std::size_t dimension, std::int64_t size) const {
    const auto found = std::find_if(all_.begin(), all_.end(), [&](const OpenSize& open) {
      return open.dimension == dimension && open.size == size;
    });
    return found == all_.end() ? nullptr : &*found;
  }

  void look_at(std::size_t dimension, std::int64_t size, std::size_t dimensions) {
    static const char* const of_image[] = {"", "channels", "height", "width"};
    std::string name = dimensions == 4 ? of_image[dimension] : "length";
    const auto taken = std::count_if(all_.begin(), all_.end(), [&](const OpenSize& open) {
      return open.name == name || open.name.starts_with(name + "_");
    });
    if (taken > 0) name += concat("_", taken + 1);
    for (const std::int64_t other : others(size))
      if (std::optional<ModelGraph> otherwise = described(dimension, size, other)) {
        all_.push_back({dimension, size, other, std::move(name), std::move(*otherwise)});
        return;
      }
  }

  /// What is near, and what a model that halves its sizes several times may take.
  static std::vector<std::int64_t> others(std::int64_t size) {
    std::vector<std::int64_t> others;
    for (std::int64_t step = 1; step <= 256; step *= 2) {
      others.push_back(size + step);
      if (size > step) others.push_back(size - step);
    }
    return others;
  }

  std::optional<ModelGraph> described(std::size_t dimension, std::int64_t size, std::int64_t other) const {
    std::vector<EntrySpec> inputs = inputs_;
    for (EntrySpec& input : inputs)
      if (dimension < input.sizes.size() && input.sizes[dimension] == size) input.sizes[dimension] = other;
    try {
      return describe_layers(model_, inputs);
    } catch (const ModelError&) {
      return std::nullopt;  // it does not take them
    }
  }

  const Model& model_;
  const std::vector<EntrySpec>& inputs_;
  std::vector<OpenSize> all_;
};

/// "x int64 [batch, length]"
std::string text_of(const OnnxEntry& entry) {
  std::vector<std::string> sizes;
  for (const auto& size : entry.sizes)
    sizes.push_back(std::visit(
        [](const auto& each) {
          const std::string text = concat(each);
          return text.empty() ? std::string("?") : text;
        },
        size));
  return concat(entry.name, " ", dtype_name(entry.dtype), " [", join(sizes), "]");
}

/// A hard link, or where there can be none a copy: whether it is one.
bool put_file(const fs::path& from, const fs::path& to, bool copies) {
  std::error_code failure;
  const fs::path file = fs::canonical(from, failure);
  if (!failure && !copies) {
    fs::create_hard_link(file, to, failure);
    if (!failure) return false;
    failure.clear();
  }
  if (!failure) fs::copy_file(file, to, failure);
  if (failure) throw Error(concat("cannot copy ", from.string(), " to ", to.string(), ": ", failure.message()));
  return true;
}

class Exporter {
 public:
  explicit Exporter(const OnnxRequest& request)
      : request_(request),
        store_(request.checkpoint),
        record_(model_record_of(store_)),
        model_(request.model(record_)),
        graph_(describe_layers(model_, record_.inputs)),
        files_(request.checkpoint, {}, request.base) {
    if (request.averaged) store_.require_averages();
    for (std::size_t layer = 0; layer < graph_.held.size(); ++layer)
      for (const HeldParameter& held : graph_.held[layer])
        names_[graph_.parameters[static_cast<std::size_t>(held.index)].name].insert(
            graph_.layers[layer].full_name(held.local_name));
    check_weights();
  }

  OnnxModel write(const std::string& folder) {
    write_own_weights(folder);
    OnnxModel made;
    OnnxGraph graph([this](const std::string& name) { return weight(name); },
                    [this](const std::string& name) { return value(name); });
    const OpenSizes open(model_, record_.inputs);
    for (const EntrySpec& input : record_.inputs) {
      graph.input(open.of_input(input));
      made.inputs.push_back(text_of(open.of_input(input)));
    }
    const std::vector<std::string> values = add_layers(graph);
    std::set<int> read;
    for (const Head& head : model_.heads) {
      const int id = value_at_end(graph_, head.output);
      if (!read.insert(id).second) continue;
      const auto at = static_cast<std::size_t>(id);
      OnnxEntry entry = open.of_output(read.size() == 1 ? "output" : head.output, id, graph_.values[at].spec);
      entry.name = graph.output(entry, values[at]);
      made.outputs.push_back(text_of(entry));
    }
    write_files(folder, graph, made);
    return made;
  }

 private:
  /// What lies in no file of the checkpoint as it is wanted: averages, among the optimizer's state, or tables in parts.
  void write_own_weights(const std::string& folder) {
    std::vector<NamedTensor> tensors;
    if (request_.averaged) {
      own_name_ = kAveragesName;
      write_safetensors(folder, own_name_, MappedWeights(store_, /*averaged=*/true).tensors());
    } else {
      for (const std::string& name : store_.names(TensorKind::weight)) {
        if (!store_.is_in_parts(TensorKind::weight, name)) continue;
        const TensorEntry entry = store_.entry(TensorKind::weight, name);
        store_.read(TensorKind::weight, name, tensors.emplace_back(name, at::empty(entry.sizes, entry.dtype)).tensor);
      }
      if (tensors.empty()) return;
      own_name_ = kTablesName;
      write_safetensors(folder, own_name_, tensors);
    }
    own_.emplace(folder + "/" + own_name_);
  }

  /// Every byte of the checkpoint's weights, and of an adapter's base, on all cores: what is exported is what was
  /// saved.
  void check_weights() {
    const MappedWeights weights(store_);
    std::map<std::string, std::uint64_t> hashes;
    for (const auto& [file, shard] : store_.manifest().shards)
      hashes.insert(shard.tensors.begin(), shard.tensors.end());
    at::parallel_for(
        0, static_cast<std::int64_t>(weights.tensors().size()), 1, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            const auto& [name, tensor, infinite] = weights.tensors()[static_cast<std::size_t>(i)];
            if (store_.is_in_parts(TensorKind::weight, name)) continue;  // compared when they are read
            const auto known = hashes.find(model_.adapter ? adapter_name(name) : name);
            const std::string damage = known == hashes.end() ? "is in no manifest" : damage_of(tensor, known->second);
            if (!damage.empty())
              throw CheckpointError(files_.file_of(name), name, -1, damage + other_good_checkpoint(store_.path()));
          }
        });
    for (const auto& [name, text] : store_.manifest().bases) {
      const TensorEntry& entry = entry_of(name);
      const at::Tensor tensor = at::empty(entry.sizes, entry.dtype);
      files_.read(entry.name, tensor);
      expect_base(files_.base_path(), entry.name, tensor, text);
    }
  }

  /// By value of the model's graph: what it is called.
  std::vector<std::string> add_layers(OnnxGraph& graph) {
    std::vector<std::string> values(graph_.values.size());
    for (const int source : graph_.sources)
      values[static_cast<std::size_t>(source)] = graph_.values[static_cast<std::size_t>(source)].spec.name;
    for (std::size_t l = 0; l < graph_.layers.size(); ++l) {
      const LayerSpec& layer = graph_.layers[l];
      std::vector<std::string> inputs;
      for (const int id : graph_.inputs[l]) inputs.push_back(values[static_cast<std::size_t>(id)]);
      try {
        graph.enter(layer.name, names_of(l));
        const std::vector<std::string> outputs = layer.layer->onnx(graph, inputs);
        if (outputs.size() != graph_.outputs[l].size())
          throw ModelError(
              concat("onnx() gives ", outputs.size(), " values, the layer has ", graph_.outputs[l].size(), " outputs"));
        for (std::size_t i = 0; i < outputs.size(); ++i)
          values[static_cast<std::size_t>(graph_.outputs[l][i])] = outputs[i];
      } catch (const ModelError& error) {
        throw ModelError(concat(layer_text(layer), ": ", error.what()));
      }
    }
    return values;
  }

  /// Of a layer's parameters and buffers, by local name, after a look at their sizes.
  std::map<std::string, std::string> names_of(std::size_t layer) const {
    std::map<std::string, std::string> names;
    const auto add = [&](const std::string& local, const std::string& full, const std::vector<std::int64_t>& sizes) {
      const TensorEntry& entry = entry_of(full);
      if (entry.sizes != sizes)
        throw CheckpointError(files_.path(), full, -1,
                              concat("is ", to_string(entry), ", the model has [", join(sizes), "]"));
      names[local] = full;
    };
    for (const HeldParameter& held : graph_.held[layer]) {
      const ParameterInfo& parameter = graph_.parameters[static_cast<std::size_t>(held.index)];
      add(held.local_name, parameter.name, parameter.sizes);
    }
    for (const int index : graph_.held_buffers[layer]) {
      const BufferInfo& buffer = graph_.buffers[static_cast<std::size_t>(index)];
      if (!buffer.is_state) add(buffer.local_name, buffer.name, buffer.sizes);
    }
    return names;
  }

  /// What the files call it: by its own name first, then by those of a tie's other holders.
  const TensorEntry& entry_of(const std::string& name) const {
    std::vector<std::string> names = {name};
    if (const auto others = names_.find(name); others != names_.end())
      names.insert(names.end(), others->second.begin(), others->second.end());
    for (const std::string& candidate : names_in_files(model_, names))
      if (const TensorEntry* entry = files_.find(candidate)) return *entry;
    if (!model_.adapter) throw CheckpointError(files_.path(), name, -1, "is not there");
    throw CheckpointError(
        files_.path(), name, -1,
        concat("is not in the base ", files_.base_path(),
               " either: what training started with a value of its own belongs in "
               "model.lora.modules_to_save, and what train.init.rename found under another name has to "
               "have the model's there"));
  }

  OnnxWeight weight(const std::string& name) {
    if (const TensorEntry* own = own_ ? own_->find(name) : nullptr) return place(own_name_, *own);
    const TensorEntry& entry = entry_of(name);
    return place(linked(files_.file_of(entry.name)), entry);
  }

  static OnnxWeight place(const std::string& file, const TensorEntry& entry) {
    return {file, entry.dtype, entry.sizes, entry.begin, entry.end - entry.begin};
  }

  at::Tensor value(const std::string& name) {
    const TensorEntry& entry = entry_of(name);
    const at::Tensor tensor = at::empty(entry.sizes, entry.dtype);
    if (const TensorEntry* own = own_ ? own_->find(name) : nullptr)
      own_->read(*own, tensor);
    else
      files_.read(entry.name, tensor);
    return tensor;
  }

  /// Under which name a file is in the folder.
  const std::string& linked(const std::string& file) {
    std::string& name = links_[file];
    if (!name.empty()) return name;
    for (name = fs::path(file).filename().string(); !taken_.insert(name).second;) name = "base-" + name;
    return name;
  }

  void write_files(const std::string& folder, const OnnxGraph& graph, OnnxModel& made) const {
    if (own_) made.copied.push_back(own_name_);
    for (const auto& [file, name] : links_)
      (put_file(file, folder + "/" + name, request_.copies) ? made.copied : made.linked).push_back(name);
    if (!graph.second_file().empty()) write_text(folder + "/" + OnnxGraph::kSecondFile, graph.second_file());
    made.own_bytes = static_cast<std::int64_t>(graph.second_file().size());
    for (const auto& [name, text] : companion_files(store_.path())) write_text(folder + "/" + name, text);
    const std::string config = model_.adapter ? kMergedConfig : kConfigName;
    if (store_.manifest().texts.contains(config)) write_text(folder + "/" + kConfigName, store_.text(config));
    const std::string bytes = graph.model(model_.name);
    made.bytes = static_cast<std::int64_t>(bytes.size());
    made.path = fs::path(request_.output) / kModelName;
    write_text(folder + "/" + kModelName, bytes);
    sync_folder(folder);
  }

  const OnnxRequest& request_;
  CheckpointStore store_;
  ModelRecord record_;
  Model model_;
  ModelGraph graph_;
  WeightFiles files_;
  std::map<std::string, std::set<std::string>> names_;  // by a parameter's name: those that its holders have for it
  std::optional<SafetensorsFile> own_;
  std::string own_name_;
  std::map<std::string, std::string> links_;  // by path: the name in the folder
  std::set<std::string> taken_ = {kModelName, kConfigName, kAveragesName, kTablesName, OnnxGraph::kSecondFile};
};

}  // namespace

OnnxModel export_onnx(const OnnxRequest& request) {
  if (!request.base.empty() && !is_adapter(request.checkpoint))
    throw UserError(concat("--base: got ", request.base, ", but ", request.checkpoint,
                           " is no adapter: it has all of its weights"));
  const at::NoGradGuard no_grad;
  Exporter exporter(request);
  NewFolder made("--out", request.output);
  const OnnxModel model = exporter.write(made.part());
  made.publish();
  return model;
}

}  // namespace lockstep
