// SPDX-License-Identifier: Apache-2.0
#include "models/registry.hpp"

#include "models/lora.hpp"
#include "models/made_by.hpp"
#include "models/plugin.hpp"
#include "runtime/config/field.hpp"

namespace lockstep {

Table<ModelFamily> model_families() {
  return {
      "model family",
      {
          {"mlp", "multi-layer perceptron: linear, activation and dropout layers", make_mlp},
          ModelFamily("gpt", "GPT-2's decoder with Hugging Face's parameter names and layouts", make_gpt)
              .with_hub({"gpt2"}, gpt_from_hub),
          ModelFamily("llama", "Llama's decoder, which Mistral and Qwen 2 share; Hugging Face's names", make_llama)
              .with_hub({"llama", "mistral", "qwen2"}, llama_from_hub),
          ModelFamily("bert", "BERT: masked language model or classifier; Hugging Face's names", make_bert)
              .with_hub({"bert"}, bert_from_hub),
          {"lstm", "LSTM layers: language model, classifier of sequences, forecast of series", make_lstm},
          {"gru", "GRU layers: the same", make_gru},
          {"resnet", "ResNet-18 to 152 with torchvision's names", make_resnet},
          {"cnn", "small residual network for images: convolutions, norms and skips", make_cnn},
          {"unet", "U-Net for segmentation: encoder, decoder and skips between them", make_unet},
          {"wide_deep", "clicks from categories: a table of embeddings per field, an MLP, and a weight per value",
           make_wide_deep},
          {"sequential", "the layers that the config lists, one after the other or in branches", make_sequential},
          {"delay", "layers that sleep for given times: measures schedules with more workers than cores", make_delay},
      }};
}

Table<LayerKind> layers_of(const ModelTables& tables) {
  Table<LayerKind> layers = tables.layers;
  for (const ActivationKind& activation : tables.activations.entries())
    layers.add({activation.name, activation.summary, [activation](const Section& section) {
                  section.finish();
                  return std::make_shared<const Activation>(activation);
                }});
  return layers;
}

Model make_model(const Section& with_lora, const Table<ModelFamily>& families, const ModelTables& tables) {
  const Section section = with_lora.without({"lora"});
  const auto type = section.get<std::string>("type");
  const Table<ModelFamily> of_library("model family",
                                      section.has("library") ? load_models(section) : std::vector<ModelFamily>());
  const Table<ModelFamily>& known = section.has("library") ? of_library : families;
  const ModelFamily* family = known.find(type);
  if (!family) throw section.error("type", known.missing(type));
  Model model = made_by(concat("the family ", type, " failed to make a model"), section,
                        [&] { return family->make(section, tables); });
  section.finish();
  for (LayerSpec& layer : model.layers)
    if (layer.origin.at.file.empty()) layer.origin = section.origin();
  if (!with_lora.has("lora")) return model;
  LowRankConfig adapter;
  read_fields(with_lora.section("lora"), [&adapter](FieldVisitor& visit) { fields(visit, adapter); });
  return with_adapters(std::move(model), adapter);
}

}  // namespace lockstep
