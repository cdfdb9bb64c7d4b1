// SPDX-License-Identifier: Apache-2.0
//
// A model in YAML alone: the layers of a list, in its order.
//
//   model:
//     type: sequential
//     layers:
//       - {type: linear, in: 8, out: 32}                           # "0"; reads and writes x
//       - {type: relu, outputs: [h]}
//       - {type: linear, name: middle, in: 32, out: 32, inputs: [h]}
//       - {type: add, inputs: [h, x]}                              # a skip: what wrote h, and what wrote x
//
// An item has the keys below and the layer's own (lockstep list layers).
//   type      the layer: required
//   name      default: its number in the list, as torch.nn.Sequential names them
//   inputs    the entries that it reads, default [x]
//   outputs   the entries that it writes, default [x]
//
// Two items are lists themselves; what is in them is named after them, "3.0", "3.1":
//   {type: repeat, times: 4, layers: [...]}     the list four times over: "3.0.0", "3.0.1", ..., "3.1.0"
//   {type: residual, layers: [...]}             x + what the list makes of x, by an add called "3.add"
#include <algorithm>
#include <string_view>
#include <utility>

#include "models/made_by.hpp"
#include "models/registry.hpp"

namespace lockstep {
namespace {

/// Of layers and entries: they are part of parameter names, of patterns and of messages.
Rule<std::string> plain_name() {
  return {"a name of letters, digits, '.', '_' and '-'", [](const std::string& name) {
            constexpr std::string_view marks = "._-";
            return !name.empty() && std::all_of(name.begin(), name.end(), [&](unsigned char c) {
              return c < 0x80 && (std::isalnum(c) != 0 || marks.find(static_cast<char>(c)) != std::string_view::npos);
            });
          }};
}

/// What the list has come to: its layers, and what the entries of a residual's list are called outside of it.
class Lister {
 public:
  Lister(const Table<LayerKind>& kinds, std::vector<LayerSpec>& layers) : kinds_(kinds), layers_(layers) {}

  /// `prefix`: of the names, "3.0.".
  void add_all(const Section& list, const std::string& prefix) {
    const std::vector<Section> items = list.sections("layers", "; write {type: ...}");
    if (items.empty()) throw list.unexpected("layers", concat("a list of 1 to ", kMostLayers, " layers"));
    for (std::size_t i = 0; i < items.size(); ++i) add(items[i], prefix, std::to_string(i));
  }

 private:
  void add(const Section& item, const std::string& prefix, const std::string& number) {
    const auto type = item.get<std::string>("type");
    const std::string name = prefix + item.get<std::string>("name", number, plain_name());
    if (type == "repeat") return repeat(item, name);
    if (type == "residual") return residual(item, name);
    const LayerKind* kind = kinds_.find(type);
    if (!kind) throw item.error("type", kinds_.missing(type));
    if (layers_.size() >= static_cast<std::size_t>(kMostLayers))
      throw item.error(
          "type", concat("is layer ", layers_.size() + 1, " of the model; at most ", kMostLayers, " are possible"));
    LayerSpec spec;
    spec.name = name;
    spec.inputs = item.list<std::string>("inputs", spec.inputs, plain_name());
    spec.outputs = item.list<std::string>("outputs", spec.outputs, plain_name());
    spec.layer =
        made_by(concat("a layer of type ", type, " failed to be made"), item, [&] { return kind->make(item); });
    spec.origin = item.origin();
    for (std::string& entry : spec.inputs)
      if (entry == "x") entry = x_;
    for (std::string& entry : spec.outputs)
      if (entry == "x") entry = x_ = branch_.empty() ? "x" : branch_;
    layers_.push_back(std::move(spec));
  }

  void repeat(const Section& item, const std::string& name) {
    const auto times = item.get<int>("times", between(1, kMostLayers));
    for (int i = 0; i < times; ++i) add_all(item, concat(name, ".", i, "."));
    item.finish();
  }

  /// Its list reads x and writes x under a name of its own, so that x is still there for the sum.
  void residual(const Section& item, const std::string& name) {
    const std::string x = x_, branch = std::exchange(branch_, name + ".x");
    add_all(item, name + ".");
    item.finish();
    const std::string made = std::exchange(x_, x);
    if (made == x) throw item.error("layers", "writes no x, so that there is nothing to add to x");
    branch_ = branch;
    x_ = branch_.empty() ? "x" : branch_;
    layers_.push_back({name + ".add", std::make_shared<Add>(), {x, made}, {x_}, "", item.origin()});
  }

  const Table<LayerKind>& kinds_;
  std::vector<LayerSpec>& layers_;
  std::string x_ = "x";  // what x is called here, and what it will be once somebody has written it
  std::string branch_;
};

}  // namespace

Model make_sequential(const Section& section, const ModelTables& tables) {
  const Table<LayerKind> kinds = layers_of(tables);
  Model model{"sequential", {}};
  Lister(kinds, model.layers).add_all(section, "");
  return model;
}

}  // namespace lockstep
