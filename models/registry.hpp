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

class HubConfig;

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
  /// The values of `model_type` in a Hugging Face folder's config.json that are this family, and the keys that such a
  /// file stands for, as a JSON object. Throws UserError that names what the family cannot do. None: it has no such
  /// folders.
  std::vector<std::string> hub_types = {};
  std::function<std::string(const HubConfig&)> from_hub = {};

  ModelFamily(std::string its_name, std::string its_summary, std::function<Model(const Section&)> maker)
      : name(std::move(its_name)),
        summary(std::move(its_summary)),
        make([maker = std::move(maker)](const Section& section, const ModelTables&) { return maker(section); }) {}
  ModelFamily(std::string its_name, std::string its_summary,
              std::function<Model(const Section&, const ModelTables&)> maker)
      : name(std::move(its_name)), summary(std::move(its_summary)), make(std::move(maker)) {}

  ModelFamily with_hub(std::vector<std::string> types, std::function<std::string(const HubConfig&)> keys) const {
    ModelFamily family = *this;
    family.hub_types = std::move(types);
    family.from_hub = std::move(keys);
    return family;
  }
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
std::string gpt_from_hub(const HubConfig& config);
Model make_llama(const Section& section);
std::string llama_from_hub(const HubConfig& config);
Model make_bert(const Section& section);
std::string bert_from_hub(const HubConfig& config);
Model make_lstm(const Section& section);
Model make_gru(const Section& section);
Model make_resnet(const Section& section);
Model make_cnn(const Section& section);
Model make_unet(const Section& section);
Model make_wide_deep(const Section& section);
Model make_delay(const Section& section);
Model make_sequential(const Section& section, const ModelTables& tables);

}  // namespace lockstep
