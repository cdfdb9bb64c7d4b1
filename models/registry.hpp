// SPDX-License-Identifier: Apache-2.0
//
// Model families by name: each is a list of layers made from the `model` section of a config. A new family is one file,
// a declaration here and a line in registry.cpp and CMakeLists.txt.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/config/section.hpp"
#include "runtime/layer/layer_kind.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/layer/model.hpp"

namespace lockstep {

/// More are a slip of the finger: describing such a model would take gigabytes. (Sizes: kMostSize of layers.hpp.)
inline constexpr int kMostLayers = 16384;

/// What the keys of a model may name.
struct ModelTables {
  Table<ActivationKind> activations = activation_kinds();
  Table<LayerKind> layers = layer_kinds();
};

struct ModelFamily {
  std::string name;     ///< model.type
  std::string summary;  ///< one line for `lockstep list models`
  std::function<Model(const Section&, const ModelTables&)> make;

  ModelFamily(std::string its_name, std::string its_summary, std::function<Model(const Section&)> maker)
      : name(std::move(its_name)),
        summary(std::move(its_summary)),
        make([maker = std::move(maker)](const Section& section, const ModelTables&) { return maker(section); }) {}
  ModelFamily(std::string its_name, std::string its_summary,
              std::function<Model(const Section&, const ModelTables&)> maker)
      : name(std::move(its_name)), summary(std::move(its_summary)), make(std::move(maker)) {}
};

Table<ModelFamily> model_families();

/// The layers that a config may list: those of the tables, and every activation as a layer without options.
Table<LayerKind> layers_of(const ModelTables& tables);

/// By `type`, among `families` or those of the shared library that the key `library` names; ConfigError with the
/// nearest name when there is none. Reads every key of the section and calls finish(). Layers that the family gives no
/// origin have the section's.
Model make_model(const Section& section, const Table<ModelFamily>& families = model_families(),
                 const ModelTables& tables = {});

Model make_mlp(const Section& section, const ModelTables& tables);
Model make_gpt(const Section& section);
Model make_cnn(const Section& section);
Model make_unet(const Section& section);
Model make_delay(const Section& section);
Model make_sequential(const Section& section, const ModelTables& tables);

}  // namespace lockstep
