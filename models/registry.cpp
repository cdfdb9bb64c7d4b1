// SPDX-License-Identifier: Apache-2.0
#include "models/registry.hpp"

#include "models/plugin.hpp"

namespace lockstep {

const std::vector<ModelFamily>& model_families() {
  static const std::vector<ModelFamily> families = {
      {"mlp", "multi-layer perceptron: linear, activation and dropout layers", make_mlp},
      {"gpt", "GPT-2's decoder with Hugging Face's parameter names and layouts", make_gpt},
      {"cnn", "small residual network for images: convolutions, norms and skips", make_cnn},
      {"unet", "U-Net for segmentation: encoder, decoder and skips between them", make_unet},
      {"delay", "layers that sleep for given times: measures schedules with more workers than cores", make_delay},
  };
  return families;
}

namespace {

/// A family may be anybody's (plugin.hpp).
Model made_by(const ModelFamily& family, const Section& section) {
  try {
    return family.make(section);
  } catch (const Error&) {
    throw;
  } catch (const c10::Error& error) {
    throw section.error(
        "type", concat("the family ", family.type, " failed to make a model: ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    throw section.error("type", concat("the family ", family.type, " failed to make a model: ", error.what()));
  }
}

}  // namespace

Model make_model(const Section& section) {
  const std::string type = section.get<std::string>("type");
  std::vector<std::string> names;
  for (const ModelFamily& family : section.has("library") ? load_models(section) : model_families()) {
    if (family.type == type) {
      Model model = made_by(family, section);
      section.finish();
      return model;
    }
    names.push_back(family.type);
  }
  throw section.error(
      "type", concat("there is no model family '", type, "'; there are: ", join(names), did_you_mean(type, names)));
}

}  // namespace lockstep
