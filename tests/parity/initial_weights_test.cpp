// SPDX-License-Identifier: Apache-2.0
//
// Training from given weights (train.init_from): they are where the run starts, on any number of workers and replicas,
// and all that does not match is named.
#include <ATen/ATen.h>

#include "runtime/checkpoint/safetensors.hpp"
#include "tests/parity/resume_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// A model with trained weights in one safetensors file.
struct Given : Small {
  TemporaryFolder folder;
  std::string file = folder.path() + "/model.safetensors";
  std::map<std::string, at::Tensor> weights;

  Given() {
    config.checkpoint.every = "never";
    Trainer trainer(model, data, config);
    for (const ParameterInfo& parameter : trainer.graph().parameters)
      weights[parameter.name] = at::randn(parameter.sizes) * 0.1;
    save();
    config.train.init_from = folder.path();
  }
  void save(at::ScalarType dtype = at::kFloat) const {
    std::vector<NamedTensor> tensors;
    for (const auto& [name, tensor] : weights) tensors.push_back({name, tensor.to(dtype)});
    write_safetensors(folder.path(), "model.safetensors", tensors);
  }
  /// With a learning rate of 0: what it started with.
  std::map<std::string, at::Tensor> start(Config of) const {
    of.train.optimizer.lr = 0;
    of.train.optimizer.weight_decay = 0;
    of.train.steps = 1;
    Trainer trainer(model, data, of);
    std::map<std::string, at::Tensor> values;
    const JobOutcome outcome = trainer.fit();
    for (const FinalParameter& parameter : outcome.parameters)
      values[trainer.graph().parameters[parameter.index].name] = parameter.value;
    return values;
  }
  std::string refusal() const {
    try {
      Trainer(model, data, config).fit();
    } catch (const UserError& error) {
      return error.what();
    }
    return "none";
  }
};

void check_equal(const std::map<std::string, at::Tensor>& ours, const std::map<std::string, at::Tensor>& expected) {
  REQUIRE(ours.size() == expected.size());
  for (const auto& [name, value] : expected) CHECK(at::equal(ours.at(name), value));
}

}  // namespace

TEST_CASE("a run starts with the weights that it is given, in every precision that they are kept in", "[parity]") {
  Given given;
  check_equal(given.start(given.config), given.weights);
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16, at::kDouble}) {
    given.save(dtype);
    std::map<std::string, at::Tensor> expected = given.weights;
    for (auto& [name, value] : expected) value = value.to(dtype).to(at::kFloat);
    check_equal(given.start(given.config), expected);
  }
}

TEST_CASE("bits of a run with given weights are the same on all workers, replicas and shards", "[parity]") {
  Given given;
  Config config = given.config;
  config.train.ema = {.given = true, .decay = 0.9};
  config.train.gradient_groups = 3;
  const RunRecord reference = reference_run(given.model, given.data, config);
  Config drawn = config;
  drawn.train.init_from = "";
  CHECK(difference(reference, given.model, given.data, drawn) != "");
  CHECK(difference(reference, given.model, given.data, with_pipeline(config, 3, "1f1b")) == "");
  config.replicas.count = 3;
  CHECK(difference(reference, given.model, given.data, config) == "");
  config.replicas.shard_optimizer = true;
  CHECK(difference(reference, given.model, given.data, with_pipeline(config, 2, "1f1b")) == "");
}

TEST_CASE("a checkpoint starts another run, and says so; a resumed run has its own weights", "[parity]") {
  Stopped stopped;
  Config config = stopped.config;
  config.train.stop_after = 1;
  config.train.init_from = stopped.checkpoint;
  const TemporaryFolder run;
  next_leg(stopped.model, stopped.data, config, run.path());
  const std::vector<std::string> changes = state_of(CheckpointStore(checkpoint_path(run.path(), 1))).changes;
  REQUIRE(changes.size() == 1);
  CHECK_THAT(changes[0], Catch::StartsWith("before step 1: starts from ") && Catch::EndsWith(stopped.checkpoint));
  config.train.init_from = "/not/there/any/more";
  config.train.stop_after = 0;
  next_leg(stopped.model, stopped.data, config, run.path());
  CHECK(state_of(CheckpointStore(checkpoint_path(run.path(), 5))).changes == changes);
}

TEST_CASE("everything that does not match is named, with what would let it pass", "[parity]") {
  Given given;
  given.weights["fc.9.weight"] = at::zeros({2});
  given.weights.erase("fc.1.bias");
  given.weights["out.weight"] = at::zeros({3, 17});
  given.save();
  CHECK(
      given.refusal() ==
      concat("(no file): train.init_from: the weights of ", given.folder.path(),
             " do not match: it lacks 1 of the model's 10 tensors: fc.1.bias (init: {missing: allow} starts them with "
             "values of their own); it has 1 that the model has not: fc.9.weight (init: {unknown: allow} leaves them "
             "out; init: {rename: {NAME: ITS NAME}} takes one for another name); of another shape or kind: out.weight "
             "is F32 [3, 17], the model's has [3, 16] (init: {fresh: [NAME]} starts one with values of its own)"));
  InitConfig& init = given.config.train.init;
  init.missing = init.unknown = Unmatched::allow;
  init.fresh = {"out.*"};
  const auto started = given.start(given.config);
  Config drawn = given.config;
  drawn.train.init_from = "";
  const auto fresh = given.start(drawn);
  for (const auto& [name, value] : started) {
    const bool own = name == "fc.1.bias" || name.starts_with("out.");
    CHECK(at::equal(value, own ? fresh.at(name) : given.weights.at(name)));
  }
  init.fresh = {"aut.*"};
  CHECK_THAT(given.refusal(),
             Catch::Contains("train.init.fresh: got 'aut.*', which matches no parameter of the model"));
}

TEST_CASE("names are matched by rules, the first that fits", "[parity]") {
  Given given;
  const auto expected = given.weights;
  given.weights.clear();
  for (const auto& [name, value] : expected) given.weights[name == "out.bias" ? "head_bias" : "blocks." + name] = value;
  given.save();
  InitConfig& init = given.config.train.init;
  init.rename = {{"out.bias", "head_bias"}, {"*", "blocks.*"}};
  check_equal(given.start(given.config), expected);
  init.rename.push_back({"nobody", "blocks.nobody"});
  CHECK_THAT(given.refusal(),
             Catch::Contains("train.init.rename: got 'nobody', which no parameter of the model is called"));
  init.rename = {{"*", "block.*"}};
  CHECK_THAT(given.refusal(), Catch::Contains("it lacks 10 of the model's 10 tensors") &&
                                  Catch::Contains("it starts nothing of the model"));
}

TEST_CASE("a GPT takes files with and without the family's prefix, masks, and a head that is tied or absent",
          "[parity]") {
  Given given;
  given.model = small_gpt(2, 0.0, /*tied=*/true);
  given.data = token_data(9, 6, 11);
  given.config = small_config("sparse_categorical_cross_entropy", 4, 2);
  given.config.train.init_from = given.folder.path();
  Config drawn = given.config;
  drawn.train.init_from = "";
  const auto expected = given.start(drawn);
  given.weights = expected;
  given.save();
  given.config.seed = 99;
  check_equal(given.start(given.config), expected);

  given.weights["lm_head.weight"] = expected.at("transformer.wte.weight").clone();
  given.save();
  check_equal(given.start(given.config), expected);
  given.weights["lm_head.weight"][0][0] += 1;
  given.save();
  CHECK_THAT(given.refusal(), Catch::Contains("the model has one parameter where it has two different tensors: "
                                              "transformer.wte.weight and lm_head.weight"));
  given.weights.clear();
  for (const auto& [name, value] : expected) given.weights[name.substr(std::string("transformer.").size())] = value;
  given.weights["h.0.attn.bias"] = at::ones({1, 1, 6, 6});
  given.save();
  check_equal(given.start(given.config), expected);
}
