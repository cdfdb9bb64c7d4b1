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
#include <algorithm>
#include <string_view>

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

LayerSpec layer_of(const Section& item, std::size_t number, const Table<LayerKind>& kinds) {
  const auto type = item.get<std::string>("type");
  const LayerKind* kind = kinds.find(type);
  if (!kind) throw item.error("type", kinds.missing(type));
  LayerSpec spec;
  spec.name = item.get<std::string>("name", std::to_string(number), plain_name());
  spec.inputs = item.list<std::string>("inputs", spec.inputs, plain_name());
  spec.outputs = item.list<std::string>("outputs", spec.outputs, plain_name());
  spec.layer = made_by(concat("a layer of type ", type, " failed to be made"), item, [&] { return kind->make(item); });
  spec.origin = item.origin();
  return spec;
}

}  // namespace

Model make_sequential(const Section& section, const ModelTables& tables) {
  const Table<LayerKind> kinds = layers_of(tables);
  const std::vector<Section> items = section.sections("layers", "; write {type: ...}");
  if (items.empty() || items.size() > static_cast<std::size_t>(kMostLayers))
    throw section.unexpected("layers", concat("a list of 1 to ", kMostLayers, " layers"));
  Model model{"sequential", {}};
  for (std::size_t i = 0; i < items.size(); ++i) model.layers.push_back(layer_of(items[i], i, kinds));
  return model;
}

}  // namespace lockstep
