// SPDX-License-Identifier: Apache-2.0
//
// The bit contract for the families that people bring: whatever the cut, schedule, recompute, replicas and legs, in
// float32 and bfloat16, the bits are those of one worker that never stopped.
#include <ATen/ATen.h>

#include "tests/parity/family_cases.hpp"
#include "tests/parity/resume_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

constexpr std::int64_t kBatch = 8, kSamples = 21;
constexpr const char* kClasses = "sparse_categorical_cross_entropy";

Config config_of(int micro_batches, int groups = 1) {
  Config config = small_config(kClasses, kBatch, micro_batches);
  config.train.gradient_groups = groups;
  config.train.steps = 4;
  config.train.metrics = {"accuracy"};
  return config;
}

}  // namespace

TEST_CASE("every family trains to the same bits for every cut, schedule and recompute", "[parity]") {
  for (const FamilyCase& the : family_cases()) {
    const Model model = model_of(the.keys);
    const Config config = config_of(5);
    const RunRecord reference = reference_run(model, the.data, config);
    REQUIRE(reference.results.size() > 4);
    for (const auto& [schedule, stages, virtual_stages] :
         std::vector<std::tuple<const char*, int, int>>{{"gpipe", 1, 1},
                                                        {"1f1b", 2, 1},
                                                        {"gpipe", 4, 1},
                                                        {"zb_h1", 3, 1},
                                                        {"interleaved_1f1b", 4, 2},
                                                        {"zbv", 4, 2}}) {
      INFO(the.keys << ", " << schedule << ", " << stages << " stages");
      Config tested = with_pipeline(config, stages, schedule, virtual_stages);
      if (stages == 1 || schedule == std::string("zb_h1")) tested.pipeline.recompute = Recompute::always;
      tested.pipeline.recompute_attention = stages != 1 && stages != 4;
      CHECK(difference(reference, model, the.data, tested) == "");
    }
  }
}

TEST_CASE("replicas of every family train to the bits of one worker", "[parity]") {
  for (const FamilyCase& the : family_cases()) {
    const Model model = model_of(the.keys);
    const Config config = config_of(4, 3);
    const RunRecord reference = reference_run(model, the.data, config);
    for (const int count : {2, 3}) {
      INFO(the.keys << ", " << count << " replicas");
      Config tested = with_pipeline(config, count == 2 ? 2 : 1, "1f1b");
      tested.replicas.count = count;
      CHECK(difference(reference, model, the.data, tested) == "");
    }
    if (the.keys.find("carry: true") != std::string::npos) continue;  // which servers refuse
    INFO(the.keys << ", servers");
    Config served = config;
    served.replicas.count = 3;
    served.replicas.strategy = ReplicaStrategy::parameter_server;
    served.replicas.servers = 2;
    served.replicas.max_staleness = 0;
    CHECK(difference(reference, model, the.data, served) == "");
  }
}

TEST_CASE("every family trains in bf16 and fp64, to the same bits for every cut", "[parity]") {
  for (const FamilyCase& the : family_cases())
    for (const Precision precision : {Precision::bf16, Precision::fp64}) {
      INFO(the.keys << ", " << to_string(precision));
      const Model model = model_of(the.keys);
      Config config = config_of(2);
      config.train.steps = 2;
      config.train.precision = precision;
      const RunRecord reference = reference_run(model, the.data, config);
      CHECK(difference(reference, model, the.data, with_pipeline(config, 3, "1f1b")) == "");
    }
}

TEST_CASE("every family goes on after a stop, on other workers, as if there had been none", "[parity]") {
  for (const FamilyCase& the : family_cases()) {
    INFO(the.keys);
    const Model model = model_of(the.keys);
    Config config = config_of(2);
    config.checkpoint.every = "2";
    config.train.eval_every = 0;
    const RunRecord reference = reference_run(model, the.data, config);
    const TemporaryFolder folder;
    config.train.stop_after = 2;
    RunRecord run = next_leg(model, the.data, with_pipeline(config, 2, "1f1b"), folder.path());
    config.train.stop_after = 0;
    append(run, next_leg(model, the.data, with_pipeline(config, 3, "gpipe"), folder.path()));
    CHECK(first_difference(reference, run, Trainer(model, the.data, config).graph()).value_or("") == "");
  }
}

TEST_CASE("a document in a row of several has the answers of a row of its own", "[parity]") {
  for (const std::string family : {"type: gpt", "type: llama, kv_heads: 1"}) {
    const std::string keys = family + ", layers: 2, heads: 2, width: 8, context: 6, vocab: 11, document_end: 5";
    // Rows of two documents, "3 1 5" and "4 2 7", and the second one alone.
    const auto loss_of = [&](std::vector<std::int64_t> tokens, std::vector<std::int64_t> targets) {
      const auto length = static_cast<std::int64_t>(tokens.size());
      const at::Tensor x = at::tensor(tokens).view({1, length}), wanted = at::tensor(targets).view({1, length});
      const DataSplits data = changed(family_tokens(1), {"x", "targets"}, [=](const Tensors&) {
        return Tensors{x, wanted};
      });
      Config config = small_config(kClasses, 1, 1);
      config.train.steps = 1;
      config.train.eval_every = 0;
      config.train.precision = Precision::fp64;
      return reference_run(model_of(keys), data, config).results.front().loss();
    };
    const double together = loss_of({3, 1, 5, 4, 2, 7}, {-100, -100, -100, 2, 7, 1});
    CHECK(together == Approx(loss_of({4, 2, 7}, {2, 7, 1})).epsilon(1e-12));
    CHECK(together != Approx(loss_of({3, 1, 6, 4, 2, 7}, {-100, -100, -100, 2, 7, 1})).epsilon(1e-9));  // one document
  }
}

TEST_CASE("what does not fit in a family is said at its key", "[parity]") {
  const auto refused = [](const std::string& keys) {
    try {
      model_of(keys);
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string llama = "type: llama, layers: 1, heads: 4, width: 16, context: 6";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {llama + ", kv_heads: 3", "kv_heads: got 3, which does not divide the 4 heads"},
      {llama + ", head_width: 5", "head_width: got 5; rotary positions turn pairs of numbers: it has to be even"},
      {llama + ", rope_scaling: {rope_type: longrope, factor: 2, short_factor: [1], long_factor: [1, 1]}",
       "rope_scaling.short_factor: got 1 numbers, expected 2"},
      {llama + ", rope_scaling: {rope_type: llama3, factor: 2, low_freq_factor: 4, high_freq_factor: 4}",
       "rope_scaling.high_freq_factor: got 4, expected more than low_freq_factor, 4"},
      {"type: bert, layers: 1, heads: 3, width: 16, context: 6, vocab: 9",
       "heads: got 3, which does not divide width 16"},
      {"type: bert, layers: 1, heads: 2, width: 16, context: 6, vocab: 9, pad: 9",
       "pad: got 9, expected a token below the vocab"},
      {"type: lstm, width: 4", "type: wants one of the keys inputs (series of numbers) and vocab (tokens)"},
      {"type: lstm, width: 4, inputs: 2", "outputs: is missing"},
      {"type: gru, width: 4, vocab: 9, bidirectional: true", "bidirectional: got true; a language model"},
      {"type: gru, width: 4, vocab: 9, embedding: 3, tie_embeddings: true", "tie_embeddings: got true; that takes"},
      {"type: gru, width: 4, vocab: 9, pad: 0, carry: true", "carry: got true beside pad"},
      {"type: gru, width: 4, inputs: 2, outputs: 1, pad: 0", "pad: got a value, but a model of series has no tokens"},
      {"type: resnet, depth: 20, classes: 2", "depth: got 20, expected one of 18, 34, 50, 101, 152"},
      {"type: sequential, layers: [{type: repeat, times: 0, layers: [{type: relu}]}]",
       "layers[0].times: got 0, expected"},
      {"type: sequential, layers: [{type: repeat, times: 2, layers: []}]",
       "layers[0].layers: got [], expected a list of 1 to"},
      {"type: sequential, layers: [{type: residual, layers: [{type: relu, outputs: [h]}]}]",
       "layers[0].layers: writes no x, so that there is nothing to add to x"},
      {"type: sequential, layers: [{type: residual, layers: [{type: rleu}]}]",
       "layers[0].layers[0].type: there is no layer 'rleu'"},
      {"type: sequential, layers: [{type: self_attention, width: 6, heads: 4}]",
       "a self_attention layer has width 6 and 4 heads"}};
  for (const auto& [keys, expected] : cases) {
    INFO(keys);
    CHECK_THAT(refused(keys), Catch::Contains(expected));
  }
}

TEST_CASE("a residual of a list is its x and what the list makes of it", "[parity]") {
  const DataSplits data = regression_data(kSamples, 6, 3);
  const Config config = small_config("mean_squared_error", kBatch, 2);
  const std::string ends = "{type: linear, name: out, in: 6, out: 3}]";
  const Model nested = model_of(
      "type: sequential, layers: [{type: residual, name: a, layers: [{type: linear, in: 6, out: 6}, "
      "{type: residual, layers: [{type: tanh}, {type: linear, in: 6, out: 6}]}]}, " +
      ends);
  const Model flat = model_of(
      "type: sequential, layers: [{type: linear, name: a.0, in: 6, out: 6, outputs: [b]}, "
      "{type: tanh, name: a.1.0, inputs: [b], outputs: [c]}, "
      "{type: linear, name: a.1.1, in: 6, out: 6, inputs: [c], outputs: [c]}, "
      "{type: add, name: a.1.add, inputs: [b, c], outputs: [b]}, {type: add, name: a.add, inputs: [x, b]}, " +
      ends);
  CHECK(difference(reference_run(flat, data, config), nested, data, with_pipeline(config, 3, "1f1b")) == "");
}
