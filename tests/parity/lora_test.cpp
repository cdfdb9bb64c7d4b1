// SPDX-License-Identifier: Apache-2.0
//
// Low-rank adapters (model.lora): what is saved of them, whose base they go on with, and that they can be merged. (The
// bit contract: families_test.cpp; the numbers: tests/oracle/peft_test.py.)
#include <ATen/ATen.h>

#include <filesystem>

#include "runtime/checkpoint/adapter.hpp"
#include "runtime/checkpoint/merge.hpp"
#include "tests/parity/family_cases.hpp"
#include "tests/parity/resume_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

const std::string kBase = "type: gpt, layers: 2, heads: 2, width: 8, context: 6, vocab: 11";

/// A base in a checkpoint, and a config that adapts it.
struct Adapting {
  TemporaryFolder base_folder, folder;
  DataSplits data = family_tokens();
  Model model = model_of(kBase + ", lora: {rank: 2, alpha: 3, targets: [c_attn, c_fc]}");
  Config config = small_config("sparse_categorical_cross_entropy", 8, 2);

  Adapting() {
    config.train.eval_every = 0;
    config.train.precision = Precision::fp64;
    config.checkpoint.every = "1";
    config.train.init_from = base_with(config.seed);
  }
  /// Its checkpoint.
  std::string base_with(std::uint64_t seed) const {
    Config of = config;
    of.seed = seed;
    of.train.steps = 1;
    const std::string into = base_folder.path() + "/" + std::to_string(seed);
    next_leg(model_of(kBase), data, of, into);
    return checkpoint_path(into, 1);
  }
};

/// Its loss.
double evaluation(Trainer& trainer) {
  struct Last : Observer {
    void on_result(const StepResult& result) override { loss = result.loss(); }
    double loss = 0;
  } last;
  RunOptions options;
  options.observer = &last;
  trainer.evaluate(options);
  return last.loss;
}

}  // namespace

TEST_CASE("the checkpoint of an adapter has what is trained, and says what it was trained on", "[parity]") {
  Adapting the;
  next_leg(the.model, the.data, with_pipeline(the.config, 3, "1f1b"), the.folder.path());
  CheckpointStore store(checkpoint_path(the.folder.path(), the.config.train.steps));
  std::vector<std::string> expected;
  for (const std::string layer : {"0", "1"})
    for (const std::string part : {"attn.c_attn", "mlp.c_fc"})
      for (const std::string which : {"A", "B"})
        expected.push_back("transformer.h." + layer + "." + part + ".lora_" + which + ".weight");
  CHECK(store.names(TensorKind::weight) == expected);
  CHECK(store.names(TensorKind::optimizer).size() == 2 * expected.size());  // AdamW's two
  const Trainer trainer(the.model, the.data, the.config);
  CHECK(store.manifest().bases.size() == trainer.graph().parameters.size() - expected.size());
  CHECK(find_damage(store.path()).empty());
  CHECK_FALSE(std::filesystem::exists(store.path() + "/config.json"));
  CHECK(adapter_info(store.path()).scale == 1.5);
  CHECK(adapter_info(store.path()).base == std::filesystem::absolute(the.config.train.init_from));
}

TEST_CASE("an adapter goes on with the base that it was trained on, wherever that is, and with no other", "[parity]") {
  Adapting the;
  const RunRecord reference = reference_run(the.model, the.data, the.config);
  Config first = with_pipeline(the.config, 2, "1f1b");
  first.train.stop_after = 2;
  RunRecord run = next_leg(the.model, the.data, first, the.folder.path());
  Config other = the.config;
  other.train.init_from = the.base_with(the.config.seed + 1);
  CHECK_THROWS_WITH(
      next_leg(the.model, the.data, other, the.folder.path()),
      Catch::Contains("is of an adapter, which was trained on other values than " + other.train.init_from));
  other.train.init_from.clear();
  CHECK_THROWS_WITH(next_leg(the.model, the.data, other, the.folder.path()),
                    Catch::Contains("trained on other values than this seed gives"));
  const std::string elsewhere = the.base_folder.path() + "/elsewhere";
  std::filesystem::copy(the.config.train.init_from, elsewhere);
  other.train.init_from = elsewhere;
  append(run, next_leg(the.model, the.data, with_pipeline(other, 3, "gpipe"), the.folder.path()));
  CHECK(first_difference(reference, run, Trainer(the.model, the.data, the.config).graph()).value_or("") == "");
  // Another training may begin with the adapter: it is found with its base.
  Config next = the.config;
  next.train.init_from = checkpoint_path(the.folder.path(), the.config.train.steps);
  next.train.steps = 1;
  CHECK(reference_run(the.model, the.data, next).results.front().loss() != reference.results.front().loss());
  CHECK_THROWS_WITH(reference_run(model_of(kBase), the.data, next), Catch::Contains("is an adapter of " + elsewhere));
  CHECK_THROWS_WITH(
      reference_run(model_of(kBase + ", lora: {rank: 2, alpha: 4, targets: [c_attn, c_fc]}"), the.data, next),
      Catch::Contains("is scaled by 1.5, here by 2"));
  CHECK_THROWS_WITH(
      reference_run(model_of(kBase + ", lora: {rank: 1, alpha: 1.5, targets: [c_attn, c_fc]}"), the.data, next),
      Catch::Contains("has the rank 2, here it is 1"));
}

TEST_CASE("a merged model is what the adapter and its base are together", "[parity]") {
  Adapting the;
  next_leg(the.model, the.data, the.config, the.folder.path());
  const std::string checkpoint = checkpoint_path(the.folder.path(), the.config.train.steps);
  const std::string merged = the.folder.path() + "/merged";
  const std::string moved = the.base_folder.path() + "/moved", named = the.config.train.init_from;
  std::filesystem::rename(named, moved);
  CHECK_THROWS_WITH(merge_adapter(checkpoint, merged),
                    Catch::Contains("names the base '" + named + "', which is not there"));
  CHECK(merge_adapter(checkpoint, the.folder.path() + "/of-moved", moved).base == moved);
  std::filesystem::rename(moved, named);
  CHECK_THROWS_WITH(merge_adapter(checkpoint, merged, the.base_with(the.config.seed + 1)),
                    Catch::Contains("is not what the adapter was trained on: this is another base"));
  const MergedModel written = merge_adapter(checkpoint, merged);
  CHECK(written.adapted == 4);
  CHECK_THROWS_WITH(merge_adapter(checkpoint, merged), Catch::Contains("is there already"));
  CHECK_THROWS_WITH(merge_adapter(the.config.train.init_from, the.folder.path() + "/none"),
                    Catch::Contains("is no adapter"));
  Config config = the.config;
  config.checkpoint.every = "never";
  config.train.steps = 1;
  const auto loss_from = [&](const Model& model, const std::string& weights) {
    config.train.init_from = weights;
    return reference_run(model, the.data, config).results.front().loss();
  };
  Trainer adapter(the.model, the.data, the.config);
  adapter.resume(checkpoint, {.evaluates = true});
  config.train.init_from = merged;
  Trainer whole(model_of(kBase), the.data, config);
  whole.find_initial_weights();
  CHECK(evaluation(whole) == Approx(evaluation(adapter)).epsilon(1e-12));
  const double together = loss_from(the.model, checkpoint),
               alone = loss_from(model_of(kBase), the.config.train.init_from);
  CHECK(loss_from(model_of(kBase), merged) == Approx(together).epsilon(1e-12));
  CHECK(together != Approx(alone).epsilon(1e-6));
}

TEST_CASE("in bf16 the base is kept in bf16, norms in float32, and what is trained in float32", "[parity]") {
  Adapting the;
  the.config.train.precision = Precision::bf16;
  const Trainer trainer(the.model, the.data, the.config);
  for (const ParameterInfo& parameter : trainer.graph().parameters) {
    const bool norm = parameter.name.find(".ln_") != std::string::npos;
    CAPTURE(parameter.name);
    CHECK(parameter.trainable == !parameter.is_base);
    CHECK(parameter.dtype == (parameter.is_base && !norm ? at::kBFloat16 : at::kFloat));
  }
  CHECK(difference(reference_run(the.model, the.data, the.config), the.model, the.data,
                   with_pipeline(the.config, 3, "zb_h1")) == "");
}

TEST_CASE("what an adapter cannot be of is said", "[parity]") {
  const DataSplits data = family_tokens();
  const auto refusal = [&](const std::string& lora) {
    try {
      Trainer(model_of(kBase + ", lora: " + lora), data, small_config("sparse_categorical_cross_entropy", 8, 2));
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{targets: [c_atn]}",
       "model.lora.targets: got 'c_atn', which no linear part is called; there are c_attn, c_fc, c_proj; "
       "did you mean 'c_attn'?"},
      {"{targets: [wte]}", "model.lora.targets: got 'wte', which no linear part is called"},
      {"{targets: [lm_head]}", "lm_head has no weight of its own, it is tied to transformer.wte.weight"},
      {"{modules_to_save: [clasifier]}", "model.lora.modules_to_save: got 'clasifier', which no module is called"},
      {"{modules_to_save: [lora_A]}", "model.lora.modules_to_save: got 'lora_A', which no module is called"},
      {"{rank: 0}", "rank: got 0, expected"},
      {"{alpha: 0}", "alpha: got 0, expected"},
      {"{targets: []}", "targets: got [], expected at least one name of a linear part, or all-linear"},
      {"{r: 4}", "r: got an unknown key, expected one of rank, alpha,"}};
  for (const auto& [lora, expected] : cases) {
    INFO(lora);
    CHECK_THAT(refusal(lora), Catch::Contains(expected));
  }
  CHECK_THROWS_WITH(Trainer(model_of("type: cnn, inputs: 3, classes: 4, lora: {}"), image_data(21, 3, 8, 4, false),
                            small_config("sparse_categorical_cross_entropy", 8, 2)),
                    Catch::Contains("has the running statistics running_mean"));
}
