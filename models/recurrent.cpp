// SPDX-License-Identifier: Apache-2.0
//
// Models of LSTM or GRU layers, one layer each as the unit of partition, with the names and layouts of
//
//   class Network(torch.nn.Module):
//     self.encoder = torch.nn.Embedding(vocab, embedding)      # with vocab
//     self.rnn = torch.nn.LSTM(embedding or inputs, width, layers, dropout=dropout, bidirectional=...,
//     batch_first=True) self.decoder = torch.nn.Linear(width, outputs)
//
// What they are for follows from the keys: with `vocab` alone a language model, with `vocab` and `outputs` a classifier
// of token sequences, with `inputs` and `outputs` one of series, or their forecast.
#include "models/language.hpp"
#include "models/registry.hpp"
#include "runtime/config/field.hpp"
#include "runtime/layer/recurrent_layers.hpp"

namespace lockstep {
namespace {

struct RecurrentSizes {
  std::int64_t inputs = 0, vocab = 0, outputs = 0, embedding = 0, width = 0;
  int layers = 1;
  bool bidirectional = false, carry = false, tied = false;
  std::int64_t pad = -1;
  double dropout = 0;

  bool is_language_model() const { return vocab > 0 && outputs == 0; }
};

void keys_of_model(FieldVisitor& visit, RecurrentSizes& sizes) {
  const auto positive = between<std::int64_t>(1, kMostSize);
  visit("inputs", value(sizes.inputs, positive));
  visit("vocab", value(sizes.vocab, positive));
  visit("outputs", value(sizes.outputs, positive));
  visit("width", value(sizes.width, positive).required());
  visit("embedding", value(sizes.embedding, positive).or_else([&sizes] { sizes.embedding = sizes.width; }));
  visit("layers", value(sizes.layers, between(1, kMostLayers)));
  visit("bidirectional", value(sizes.bidirectional));
  visit("dropout", value(sizes.dropout, fraction_below_one()));
  visit("pad", value(sizes.pad, between<std::int64_t>(-1, kMostSize)));
  visit("carry", value(sizes.carry));
  visit("tie_embeddings", value(sizes.tied));
}

void check(const Section& section, const RecurrentSizes& sizes) {
  if (section.has("inputs") == section.has("vocab"))
    throw section.error("type", "wants one of the keys inputs (series of numbers) and vocab (tokens)");
  if (sizes.inputs > 0 && sizes.outputs == 0) throw section.error("outputs", "is missing; a model of series needs it");
  for (const char* key : {"embedding", "pad", "tie_embeddings"})
    if (section.has(key) && sizes.vocab == 0)
      throw section.error(key, "got a value, but a model of series has no tokens; remove it, or give vocab");
  if (sizes.pad >= sizes.vocab && sizes.vocab > 0)
    throw section.error("pad", concat("got ", sizes.pad, ", expected a token below the vocab of ", sizes.vocab));
  if (sizes.is_language_model() && sizes.bidirectional)
    throw section.error("bidirectional", "got true; a language model that reads backwards has seen what it is to say");
  if (sizes.tied && (!sizes.is_language_model() || sizes.embedding != sizes.width))
    throw section.error("tie_embeddings", concat("got true; that takes a language model whose embedding (",
                                                 sizes.embedding, ") is as wide as its width (", sizes.width, ")"));
  if (sizes.carry && sizes.pad >= 0)
    throw section.error("carry", "got true beside pad; rows that go on in the next batch have no end");
}

Model make_recurrent(const Section& section, RecurrentKind kind) {
  RecurrentSizes sizes;
  read_fields(section, [&sizes](FieldVisitor& visit) { keys_of_model(visit, sizes); });
  check(section, sizes);
  Model model{to_string(kind), {}};
  std::vector<std::string> read = {"x"};
  std::int64_t in = sizes.inputs;
  if (sizes.pad >= 0) {
    model.layers.push_back({"lengths", std::make_shared<Lengths>(LengthsConfig{sizes.pad}), {"x"}, {"lengths"}});
    read.emplace_back("lengths");
  }
  if (sizes.vocab > 0) {
    model.layers.push_back({"encoder", std::make_shared<Embedding>(sizes.vocab, sizes.embedding)});
    in = sizes.embedding;
  }
  for (int number = 0; number < sizes.layers; ++number) {
    const bool last = number + 1 == sizes.layers;
    RecurrentConfig config{.kind = kind, .in = in, .width = sizes.width, .number = number};
    config.bidirectional = sizes.bidirectional;
    config.carry = sizes.carry;
    config.last_only = last && !sizes.is_language_model();
    model.layers.push_back({concat("rnn.", number), std::make_shared<Recurrent>(config), read, {"x"}, "rnn."});
    if (!last && sizes.dropout > 0)
      model.layers.push_back({concat("drop.", number), std::make_shared<Dropout>(sizes.dropout)});
    in = sizes.bidirectional ? 2 * sizes.width : sizes.width;
  }
  if (sizes.tied)
    model.layers.push_back(
        {"decoder", std::make_shared<LanguageHead>("tied_head", in, sizes.vocab, Init::zeros(), "encoder.weight")});
  else
    model.layers.push_back(
        {"decoder", std::make_shared<Linear>(in, sizes.is_language_model() ? sizes.vocab : sizes.outputs)});
  return model;
}

}  // namespace

Model make_lstm(const Section& section) {
  return make_recurrent(section, RecurrentKind::lstm);
}

Model make_gru(const Section& section) {
  return make_recurrent(section, RecurrentKind::gru);
}

}  // namespace lockstep
