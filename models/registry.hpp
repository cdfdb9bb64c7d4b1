// SPDX-License-Identifier: Apache-2.0
//
// Model families by name: each is a list of layers made from the `model` section of a config. A new family is one file,
// a declaration here and a line in registry.cpp and CMakeLists.txt.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/config/section.hpp"
#include "runtime/layer/model.hpp"

namespace lockstep {

// Sizes beyond these are slips of the finger: describing such a model would take gigabytes, or its products overflow.
inline constexpr int kMostLayers = 16384;
inline constexpr std::int64_t kMostSize = 1 << 24;  ///< of one dimension: width, vocabulary, context

struct ModelFamily {
  std::string type;
  std::string summary;  ///< one line for `lockstep list models`
  std::function<Model(const Section&)> make;
};

const std::vector<ModelFamily>& model_families();

/// By `type`, among ours or those of the shared library that the key `library` names; ConfigError with the nearest name
/// when there is none. Reads every key of the section and calls finish().
Model make_model(const Section& section);

Model make_mlp(const Section& section);
Model make_gpt(const Section& section);
Model make_cnn(const Section& section);
Model make_unet(const Section& section);
Model make_delay(const Section& section);

}  // namespace lockstep
