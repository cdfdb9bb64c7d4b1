// SPDX-License-Identifier: Apache-2.0
//
// Layers by name, for models that a config lists: ours, and those that plug-ins add.
//
//   registry.layers.add(layer_kind<Dropout>("dropout", "what it does, in a line"));
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/table.hpp"
#include "runtime/config/field.hpp"
#include "runtime/layer/layer_of.hpp"

namespace lockstep {

struct LayerKind {
  std::string name;     ///< Layer::type() of what it makes
  std::string summary;  ///< a line for `lockstep list layers`
  /// Reads every key that is the layer's own and calls finish(): others are those of its place in the model, and have
  /// been asked for. What is wrong with a value is a ConfigError, what does not fit together a ModelError.
  std::function<std::shared_ptr<const Layer>(const Section&)> make;
  std::vector<std::string> keys = {};  ///< "in" of one that is required, "bias: true" of one that is not
};

/// Of a LayerOf<Config> that is made from a Config. `start`: what members are without a key, and those that no key has.
template <typename L>
LayerKind layer_kind(std::string name, std::string summary, const typename L::Config& start) {
  typename L::Config defaults = start;
  LayerKind kind{std::move(name), std::move(summary), [start](const Section& section) {
                   typename L::Config config = start;
                   read_fields(section, [&config](FieldVisitor& visit) { fields(visit, config); });
                   return std::make_shared<const L>(config);
                 }};
  kind.keys = defaults_of([&defaults](FieldVisitor& visit) { fields(visit, defaults); });
  return kind;
}

/// Of a LayerOf with the defaults of its Config, or of a layer without options.
template <typename L>
LayerKind layer_kind(std::string name, std::string summary) {
  if constexpr (requires { typename L::Config; }) {
    return layer_kind<L>(std::move(name), std::move(summary), typename L::Config());
  } else {
    return {std::move(name), std::move(summary), [](const Section& section) {
              section.finish();
              return std::make_shared<const L>();
            }};
  }
}

/// linear, conv2d, dropout, ...: what `lockstep list layers` says.
Table<LayerKind> layer_kinds();

}  // namespace lockstep
