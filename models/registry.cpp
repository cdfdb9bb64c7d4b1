// SPDX-License-Identifier: Apache-2.0
#include "models/registry.hpp"

#include "models/plugin.hpp"

namespace lockstep {

Table<ModelFamily> model_families() {
  return {
      "model family",
      {
          {"mlp", "multi-layer perceptron: linear, activation and dropout layers", make_mlp},
          {"gpt", "GPT-2's decoder with Hugging Face's parameter names and layouts", make_gpt},
          {"cnn", "small residual network for images: convolutions, norms and skips", make_cnn},
          {"unet", "U-Net for segmentation: encoder, decoder and skips between them", make_unet},
          {"delay", "layers that sleep for given times: measures schedules with more workers than cores", make_delay},
      }};
}

namespace {

/// A family may be anybody's (plugin.hpp).
Model made_by(const ModelFamily& family, const Section& section, const ModelTables& tables) {
  try {
    return family.make(section, tables);
  } catch (const Error&) {
    throw;
  } catch (const c10::Error& error) {
    throw section.error(
        "type", concat("the family ", family.name, " failed to make a model: ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    throw section.error("type", concat("the family ", family.name, " failed to make a model: ", error.what()));
  }
}

}  // namespace

Model make_model(const Section& section, const Table<ModelFamily>& families, const ModelTables& tables) {
  const auto type = section.get<std::string>("type");
  const Table<ModelFamily> of_library("model family",
                                      section.has("library") ? load_models(section) : std::vector<ModelFamily>());
  const Table<ModelFamily>& known = section.has("library") ? of_library : families;
  const ModelFamily* family = known.find(type);
  if (!family) throw section.error("type", known.missing(type));
  Model model = made_by(*family, section, tables);
  section.finish();
  return model;
}

}  // namespace lockstep
