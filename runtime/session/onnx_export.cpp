// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/onnx_export.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "runtime/base/new_folder.hpp"
#include "runtime/checkpoint/adapter.hpp"
#include "runtime/checkpoint/weight_files.hpp"
#include "runtime/layer/dtype_names.hpp"
#include "runtime/layer/onnx_graph.hpp"
#include "runtime/training/model_record.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelName = "model.onnx";
constexpr const char* kAveragesName = "model.safetensors";
constexpr const char* kBatch = "batch";

/// An entry at some place in the model: what it is called in the graph, and what it is.
struct Alive {
  std::string value;
  EntrySpec spec;
};
using Entries = std::map<std::string, Alive>;

/// What a layer holds: local name -> the full name of what is stored, and its sizes.
using Held = std::map<std::string, std::pair<std::string, std::vector<std::int64_t>>>;

/// Goes through the layers with what they read; `visit` gives the names of what they put out in the graph.
Entries walk(const Model& model, Entries alive,
             const std::function<std::vector<std::string>(const LayerSpec&, const Held&,
                                                          const std::vector<std::string>&)>& visit) {
  for (const LayerSpec& layer : model.layers) {
    std::vector<std::string> values;
    std::vector<EntrySpec> specs;
    for (const std::string& entry : layer.inputs) {
      const auto found = alive.find(entry);
      if (found == alive.end())
        throw ModelError(concat(layer_text(layer), " reads the entry '", entry, "', which nothing before it writes"));
      values.push_back(found->second.value);
      specs.push_back(found->second.spec);
    }
    try {
      const LayerDescription description = layer.layer->describe(specs);
      Held held;
      for (const ParameterSpec& each : description.parameters)
        held[each.name] = {each.tied_to.empty() ? layer.full_name(each.name) : each.tied_to, each.sizes};
      for (const BufferSpec& each : description.buffers) held[each.name] = {layer.full_name(each.name), each.sizes};
      const std::vector<std::string> made = visit(layer, held, values);
      for (std::size_t i = 0; i < layer.outputs.size(); ++i) {
        EntrySpec spec = description.outputs.at(i);
        spec.name = layer.outputs[i];
        alive[spec.name] = {made.empty() ? "" : made.at(i), spec};
      }
    } catch (const ModelError& error) {
      throw ModelError(concat(layer_text(layer), ": ", error.what()));
    }
  }
  return alive;
}

/// The entries at the end for inputs of these sizes; none: the model does not take them.
std::optional<Entries> described(const Model& model, const std::vector<EntrySpec>& inputs) {
  Entries alive;
  for (const EntrySpec& input : inputs) alive[input.name] = {"", input};
  try {
    return walk(model, alive, [](const auto&, const auto&, const auto&) { return std::vector<std::string>(); });
  } catch (const ModelError&) {
    return std::nullopt;
  }
}

at::ScalarType onnx_dtype(at::ScalarType dtype) {
  return at::isFloatingType(dtype) ? at::kFloat : dtype;
}

/// A size that the inputs share, and that may be another one.
struct OpenSize {
  std::size_t dimension = 0;
  std::int64_t size = 0;
  std::string name;
  Entries otherwise;  ///< the entries at the end where it is another one
};

class OpenSizes {
 public:
  OpenSizes(const Model& model, const std::vector<EntrySpec>& inputs) {
    for (const EntrySpec& input : inputs)
      for (std::size_t d = 1; d < input.sizes.size(); ++d)
        look_at(model, inputs, d, input.sizes[d], input.sizes.size());
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

  /// A size that an open one changes has its name where it is the same, else none.
  OnnxEntry of_output(const std::string& name, const EntrySpec& output) const {
    OnnxEntry entry{name, onnx_dtype(output.dtype), {}};
    for (std::size_t d = 0; d < output.sizes.size(); ++d) {
      std::variant<std::int64_t, std::string> size = output.sizes[d];
      if (d == 0 && output.batched) size = kBatch;
      for (const OpenSize& open : all_) {
        const std::int64_t otherwise = open.otherwise.at(output.name).spec.sizes[d];
        if (otherwise != output.sizes[d])
          size = output.sizes[d] == open.size && otherwise == other(open.size) ? open.name : "";
      }
      entry.sizes.push_back(std::move(size));
    }
    return entry;
  }

 private:
  static std::int64_t other(std::int64_t size) { return size > 1 ? size / 2 : 2; }

  const OpenSize* find(std::size_t dimension, std::int64_t size) const {
    const auto found = std::find_if(all_.begin(), all_.end(), [&](const OpenSize& open) {
      return open.dimension == dimension && open.size == size;
    });
    return found == all_.end() ? nullptr : &*found;
  }

  void look_at(const Model& model, std::vector<EntrySpec> inputs, std::size_t dimension, std::int64_t size,
               std::size_t dimensions) {
    if (find(dimension, size)) return;
    for (EntrySpec& input : inputs)
      if (dimension < input.sizes.size() && input.sizes[dimension] == size) input.sizes[dimension] = other(size);
    std::optional<Entries> otherwise = described(model, inputs);
    if (!otherwise) return;
    static const char* const of_image[] = {"", "channels", "height", "width"};
    std::string name = dimensions == 4 ? of_image[dimension] : "length";
    const auto taken = std::count_if(all_.begin(), all_.end(), [&](const OpenSize& open) {
      return open.name == name || open.name.starts_with(name + "_");
    });
    if (taken > 0) name += concat("_", taken + 1);
    all_.push_back({dimension, size, name, std::move(*otherwise)});
  }

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

class Exporter {
 public:
  /// `folder`: where the files come to be.
  Exporter(const OnnxRequest& request, std::string folder)
      : request_(request),
        folder_(std::move(folder)),
        store_(request.checkpoint),
        record_(model_record_of(store_)),
        model_(model()),
        files_(request.checkpoint, {}, request.base) {}

  OnnxModel run() {
    if (request_.averaged) write_averages();
    if (model_.adapter) check_base();
    OnnxModel made;
    OnnxGraph graph([this](const std::string& name) { return weight(name); },
                    [this](const std::string& name) { return value(name); });
    const std::vector<EntrySpec>& inputs = record_.inputs;
    Entries alive;
    for (const EntrySpec& input : inputs) alive[input.name] = {input.name, input};
    alive = walk(model_, std::move(alive), [&](const LayerSpec& layer, const Held& held, const auto& values) {
      std::map<std::string, std::string> names;
      for (const auto& [local, stored] : held) {
        check_sizes(stored.first, stored.second);
        names[local] = stored.first;
      }
      graph.enter(layer.name, names);
      return layer.layer->onnx(graph, values);
    });
    const OpenSizes open(model_, inputs);
    for (const EntrySpec& input : inputs) {
      graph.input(open.of_input(input));
      made.inputs.push_back(text_of(open.of_input(input)));
    }
    std::set<std::string> read;
    for (const Head& head : model_.heads) {
      if (!read.insert(head.output).second) continue;
      const Alive& output = alive.at(head.output);
      const OnnxEntry entry = open.of_output(read.size() == 1 ? "output" : head.output, output.spec);
      graph.output(entry, output.value);
      made.outputs.push_back(text_of(entry));
    }
    write(graph, made);
    return made;
  }

 private:
  Model model() const {
    if (request_.model) return request_.model();
    if (!record_.root.has("model"))
      throw CheckpointError(store_.path(),
                            "is of a model that a program has made: export it from that program "
                            "(export_onnx() of runtime/session/onnx_export.hpp)");
    Registry registry;
    if (request_.extend) request_.extend(registry);
    load_plugins(record_.plugins, record_.root, registry);
    return make_model(record_.root.section("model"), registry.models, registry);
  }

  /// What the files call it.
  const TensorEntry& entry_of(const std::string& name) const {
    for (const std::string& candidate : names_in_files(model_, {name}))
      if (const TensorEntry* entry = files_.find(candidate)) return *entry;
    throw CheckpointError(files_.path(), name, -1,
                          files_.base_path() == files_.path()
                              ? "is not there"
                              : concat("is not in the base ", files_.base_path(), " either"));
  }

  void check_sizes(const std::string& name, const std::vector<std::int64_t>& sizes) const {
    const TensorEntry& entry = entry_of(name);
    if (entry.sizes != sizes)
      throw CheckpointError(files_.path(), name, -1,
                            concat("is ", to_string(entry), ", the model has [", join(sizes), "]"));
  }

  OnnxWeight weight(const std::string& name) {
    if (averages_)
      if (const TensorEntry* entry = averages_->find(name)) return place(kAveragesName, *entry);
    const TensorEntry& entry = entry_of(name);
    return place(linked(files_.file_of(entry.name)), entry);
  }

  static OnnxWeight place(const std::string& file, const TensorEntry& entry) {
    return {file, entry.dtype, entry.sizes, entry.begin, entry.end - entry.begin};
  }

  at::Tensor value(const std::string& name) {
    const TensorEntry& entry = entry_of(name);
    const at::Tensor tensor = at::empty(entry.sizes, entry.dtype);
    if (const TensorEntry* average = averages_ ? averages_->find(name) : nullptr)
      averages_->read(*average, tensor);
    else
      files_.read(entry.name, tensor);
    return tensor;
  }

  /// Under which name a file is in the folder.
  const std::string& linked(const std::string& file) {
    std::string& name = links_[file];
    if (!name.empty()) return name;
    name = fs::path(file).filename().string();
    for (const auto& [other, taken] : links_)
      if (other != file && taken == name) name = "base-" + name;
    return name;
  }

  /// Averages lie among the optimizer's state, some in parts: they are copied.
  void write_averages() {
    const MappedWeights weights(store_, /*averaged=*/true);
    write_safetensors(folder_, kAveragesName, weights.tensors());
    averages_.emplace(folder_ + "/" + kAveragesName);
  }

  void check_base() {
    for (const auto& [name, text] : store_.manifest().bases) {
      const TensorEntry& entry = entry_of(name);
      const at::Tensor tensor = at::empty(entry.sizes, entry.dtype);
      files_.read(entry.name, tensor);
      expect_base(files_.base_path(), entry.name, tensor, text);
    }
  }

  void write(const OnnxGraph& graph, OnnxModel& made) const {
    if (averages_) made.copied.emplace_back(kAveragesName);
    for (const auto& [file, name] : links_) {
      const fs::path from = fs::canonical(file), to = folder_ + "/" + name;
      std::error_code failure;
      if (!request_.copies) fs::create_hard_link(from, to, failure);
      const bool copies = request_.copies || failure;
      if (copies) fs::copy_file(from, to);
      (copies ? made.copied : made.linked).push_back(name);
    }
    if (!graph.second_file().empty()) write_text(folder_ + "/" + OnnxGraph::kSecondFile, graph.second_file());
    made.own_bytes = static_cast<std::int64_t>(graph.second_file().size());
    for (const auto& [name, text] : companion_files(store_.path())) write_text(folder_ + "/" + name, text);
    const std::string config = model_.adapter ? kMergedConfig : "config.json";
    if (store_.manifest().texts.contains(config)) write_text(folder_ + "/config.json", store_.text(config));
    const std::string bytes = graph.model(model_.name);
    made.bytes = static_cast<std::int64_t>(bytes.size());
    made.path = request_.output + "/" + kModelName;
    write_text(folder_ + "/" + kModelName, bytes);
    sync_folder(folder_);
  }

  const OnnxRequest& request_;
  std::string folder_;
  CheckpointStore store_;
  ModelRecord record_;
  Model model_;
  WeightFiles files_;
  std::optional<SafetensorsFile> averages_;
  std::map<std::string, std::string> links_;  // by path: the name in the folder
};

}  // namespace

OnnxModel export_onnx(const OnnxRequest& request) {
  const at::NoGradGuard no_grad;
  NewFolder made("--out", request.output);
  const OnnxModel model = Exporter(request, made.part()).run();
  made.publish();
  return model;
}

}  // namespace lockstep
