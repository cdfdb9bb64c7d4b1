// SPDX-License-Identifier: Apache-2.0
//
// Optimizers and the average of weights: the same bits for every cut, resumed, corrected afterwards; ours and those of
// plug-ins.
#include <ATen/ATen.h>

#include <cmath>
#include <numeric>

#include "runtime/engine/weights.hpp"
#include "runtime/session/planning.hpp"
#include "runtime/training/optimizer.hpp"
#include "tests/parity/optimizer_fixture.hpp"
#include "tests/unit/thrown_by.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

const std::vector<std::string>& kinds() {
  static const std::vector<std::string> all = {
      "type: sgd, momentum: 0.9",
      "type: adamw, weight_decay: 0.1",
      "type: rmsprop, weight_decay: 0.1",
      "type: rmsprop, momentum: 0.9, centered: true",
      "type: adagrad, initial_accumulator_value: 0.1, lr_decay: 0.1",
      "type: adafactor, weight_decay: 0.1, groups: [{match: ['fc.1.*'], lr_scale: 0.5}]"};
  return all;
}

double loss_of(const RunRecord& run) {
  StepResult sum;
  for (const StepResult& result : run.results) sum.add(result);
  return sum.loss();
}

class Recording : public Observer {
 public:
  void on_result(const StepResult& result) override { run.results.push_back(result); }
  RunRecord run;
};

}  // namespace

TEST_CASE("every optimizer, with averages, gives the same bits for every cut, corrected afterwards, and resumed",
          "[parity]") {
  const Model model = mlp_with_skip(0.1, true);
  const DataSplits data = regression_data(21, 6, 3);
  for (const std::string& keys : kinds())
    for (const std::string ema : {"", ", ema: {decay: 0.9}"}) {
      INFO(keys << ema);
      const Config config = with_optimizer(keys, ema);
      const RunRecord reference = reference_run(model, data, config);
      Config corrected = with_pipeline(config, 3, "1f1b");
      corrected.train.post_validation = true;
      CHECK(difference(reference, model, data, corrected) == "");
      CHECK(difference(reference, model, data, with_pipeline(config, 4, "zb_h1")) == "");
      CHECK(broken_difference(reference, model, data, config) == "");
    }
}

TEST_CASE("a tied parameter has one average, in two places", "[parity]") {
  const Model gpt = small_gpt(3, 0.2, /*tied=*/true);
  const DataSplits data = token_data(21, 8, 11);
  Config config = with_optimizer("type: adafactor", ", ema: {decay: 0.9}");
  config.train.loss = "sparse_categorical_cross_entropy";
  const RunRecord reference = reference_run(gpt, data, config);
  CHECK(difference(reference, gpt, data, with_pipeline(config, 4, "zb_h1")) == "");
  CHECK(broken_difference(reference, gpt, data, config) == "");
}

TEST_CASE("the bytes that are planned are those that are kept, by the planner and by the stages of a run", "[parity]") {
  for (const Model& model : {mlp_with_skip(0.0, true), model_of("type: cnn, inputs: 3, classes: 4")})
    for (const std::string& keys : kinds())
      for (const std::string ema : {"", ", ema: {}"}) {
        INFO(model.name << ", " << keys << ema);
        const bool images = model.name == "cnn";
        const DataSplits data = images ? image_data(16, 3, 8, 4, false) : regression_data(16, 6, 3);
        Config config = one_worker(with_optimizer(keys, ema));
        if (images) config.train.loss = "sparse_categorical_cross_entropy";
        if (images) config.train.optimizer.groups.clear();
        config.train.freeze = {"*.bias"};
        const Trainer trainer(model, data, config);
        MemoryPool pool;
        const MemoryPool::Scope memory(pool);
        Weights weights(trainer.graph(), trainer.partition(), {StageId(0)},
                        {.seed = 7, .make_updater = trainer.assembly().optimizer.maker()}, pool);
        double kept = 0, elements = 0, trained = 0;
        for (const HeldTensor& held : weights.state().optimizer) kept += static_cast<double>(held.tensor.nbytes());
        for (const ParameterInfo& parameter : trainer.graph().parameters) {
          elements += static_cast<double>(parameter.elements());
          trained += parameter.trainable ? static_cast<double>(parameter.elements()) : 0.0;
        }
        const std::vector<double> planned = optimizer_bytes(trainer.assembly());
        CHECK(std::accumulate(planned.begin(), planned.end(), 0.0) == kept);
        CHECK(state_bytes_of_stages(trainer.assembly()) == std::vector<double>{4 * (elements + trained) + kept});
      }
}

TEST_CASE("a checkpoint has averages of what is trained, which start as the weights after the first step", "[parity]") {
  Small the;
  the.config = with_optimizer("type: adamw", ", ema: {decay: 0.75}");
  the.config.checkpoint.every = "1";
  the.config.checkpoint.keep = 9;
  the.config.train.freeze = {"fc.0.*"};
  const TemporaryFolder folder;
  Trainer trainer(the.model, the.data, with_pipeline(the.config, 2, "1f1b"));
  record_run(trainer, {.checkpoints = folder.path()});
  at::Tensor average;
  for (std::int64_t step = 1; step <= 5; ++step) {
    const std::string checkpoint = checkpoint_path(folder.path(), step);
    const at::Tensor weight = saved(checkpoint, TensorKind::weight, "out.weight");
    average = step == 1 ? weight.clone() : average.lerp(weight, 0.25);
    CHECK(at::equal(saved(checkpoint, TensorKind::optimizer, "out.weight.ema"), average));
    CHECK_FALSE(CheckpointStore(checkpoint).has_average("fc.0.weight"));
  }
  const MappedWeights averaged(CheckpointStore(checkpoint_path(folder.path(), 5)), /*averaged=*/true);
  for (const NamedTensor& each : averaged.tensors())
    if (each.name == "out.weight") CHECK(at::equal(each.tensor, average));
}

TEST_CASE("an evaluation with averages is that of a model with them; without any it is refused", "[parity]") {
  Small the;
  the.config = with_optimizer("type: adamw", ", ema: {decay: 0.5}");
  the.config.checkpoint.every = "end";
  const TemporaryFolder folder, other;
  next_leg(the.model, the.data, with_pipeline(the.config, 3, "1f1b"), folder.path());
  const std::string checkpoint = checkpoint_path(folder.path(), 5);
  const auto loss = [&](const std::string& from, const Config& config, bool averaged) {
    Trainer trainer(the.model, the.data, config);
    trainer.resume(from, {.evaluates = true, .averaged = averaged});
    Recording recording;
    trainer.evaluate({.observer = &recording});
    return loss_of(recording.run);
  };
  const Config sgd = with_optimizer("type: sgd, momentum: 0.9");  // of which the checkpoint has nothing
  CHECK(loss(checkpoint, one_worker(the.config), true) != loss(checkpoint, one_worker(the.config), false));
  CHECK(loss(checkpoint, with_pipeline(sgd, 2, "gpipe"), true) == loss(checkpoint, one_worker(the.config), true));
  the.config.train.ema = {};
  next_leg(the.model, the.data, one_worker(the.config), other.path());
  CHECK_THROWS_WITH(loss(checkpoint_path(other.path(), 5), the.config, true),
                    Catch::Contains("has no averages of its weights: it was trained without train.ema"));
}

TEST_CASE("averages that a checkpoint lacks are taken up knowingly, from its weights", "[parity]") {
  Small the;
  the.config = with_optimizer("type: adamw");
  the.config.checkpoint.every = "1";
  const TemporaryFolder folder;
  Config first = the.config;
  first.train.stop_after = 2;
  next_leg(the.model, the.data, first, folder.path());
  the.config.train.ema = {true, 0.75};
  the.config.train.stop_after = 1;
  const std::string checkpoint = checkpoint_path(folder.path(), 2);
  Trainer trainer(the.model, the.data, with_pipeline(the.config, 2, "1f1b"));
  CHECK_THROWS_WITH(trainer.resume(checkpoint),
                    Catch::Contains("train.ema.decay: got 0.75, expected nothing as in the checkpoint") &&
                        Catch::EndsWith("--change train.ema.decay=0.75"));
  trainer.resume(checkpoint, {.changes = {"train.ema"}});
  trainer.fit({.checkpoints = folder.path()});
  const std::string next = checkpoint_path(folder.path(), 3);
  const at::Tensor expected =
      saved(checkpoint, TensorKind::weight, "out.weight").lerp(saved(next, TensorKind::weight, "out.weight"), 0.25);
  CHECK(at::equal(saved(next, TensorKind::optimizer, "out.weight.ema"), expected));
}

namespace {

/// What it keeps depends on the parameter's size, and its rate on a key of its own.
class Signs : public UpdateRule {
 public:
  explicit Signs(const Section& keys) : slow_(keys.get("slow", 0.5, fraction_below_one())) {}
  std::vector<KeptTensor> keeps(const Sizes& parameter) const override {
    if (parameter.size() < 2) return {};
    return {{"average", parameter, 1.0}};
  }
  void update(TrainedTensor& parameter, const UpdateStep& step) const override {
    parameter.value.mul_(1 - step.lr * step.weight_decay);
    if (parameter.kept.empty()) return;
    parameter.value.sub_(parameter.kept[0].lerp_(parameter.gradient, 1 - slow_).sign(), step.lr);
  }

 private:
  double slow_;
};

TrainTables with_signs() {
  TrainTables tables;
  tables.optimizers.add({"signs", "for a test",
                         [](const OptimizerConfig& config) { return std::make_shared<Signs>(config.plugin.keys); }});
  tables.lr_schedules.add({"inverse", "for a test", [](const LrScheduleConfig& schedule) -> LearningRate {
                             const double power = schedule.plugin.keys.get("power", 1.0, above(0.0));
                             return [power](double base, std::int64_t step) {
                               return base / std::pow(static_cast<double>(step), power);
                             };
                           }});
  return tables;
}

}  // namespace

TEST_CASE("a plug-in's optimizer and schedule train to the same bits for every cut, with groups, and resumed",
          "[parity]") {
  Small the;
  Config& config = the.config;
  config = with_optimizer(
      "type: signs, slow: 0.75, weight_decay: 0.1, decay_norms_and_biases: false, groups: [{match: "
      "['out.*'], lr_scale: 0}]",
      ", ema: {}");
  config.train.lr_schedule = {};
  config.train.lr_schedule.plugin = {"inverse", load_config_text("power: 0.5\n", "schedule")};
  config.checkpoint.every = "1";
  const auto trainer_of = [&](const Config& of) {
    return Trainer(assemble(the.model, the.data, of, {}, with_signs()));
  };
  Trainer whole = trainer_of(one_worker(config));
  const RunRecord reference = record_run(whole);
  CHECK(reference.results[1].learning_rate == 0.01 / std::sqrt(static_cast<double>(reference.results[1].step)));
  Config cut = with_pipeline(config, 3, "1f1b");
  cut.train.stop_after = 2;
  const TemporaryFolder folder;
  Trainer first = trainer_of(cut);
  RunRecord run = record_run(first, {.checkpoints = folder.path()});
  const std::string checkpoint = checkpoint_path(folder.path(), 2);
  CHECK(saved(checkpoint, TensorKind::optimizer, "fc.0.weight.average").sizes().size() == 2);
  CHECK_FALSE(CheckpointStore(checkpoint).has(TensorKind::optimizer, "fc.0.bias.average"));
  Trainer second = trainer_of(with_pipeline(config, 2, "gpipe"));
  second.resume(checkpoint);
  append(run, record_run(second));
  CHECK(first_difference(reference, run, whole.graph()).value_or("") == "");
  for (const FinalParameter& parameter : run.parameters) {
    const ParameterInfo& info = whole.graph().parameters[parameter.index];
    const bool is_still = info.name.starts_with("out.") || info.sizes.size() < 2;
    CHECK(at::equal(parameter.value, initial_value(info, config.seed, at::kCPU)) == is_still);
  }

  Config other = with_pipeline(config, 2, "gpipe");  // keys of its own are compared with the checkpoint's
  other.train.lr_schedule.plugin.keys = load_config_text("power: 0.25\n", "schedule");
  CHECK_THROWS_WITH(trainer_of(other).resume(checkpoint),
                    Catch::Contains("power: got 0.25, expected 0.5 as in the checkpoint") &&
                        Catch::EndsWith("--change train.lr_schedule.power=0.25"));
}

TEST_CASE("an optimizer that cannot be made, or keeps two tensors of one name, is refused", "[parity]") {
  struct Twice : UpdateRule {
    std::vector<KeptTensor> keeps(const Sizes& sizes) const override {
      return sizes.size() < 2 ? std::vector<KeptTensor>{} : std::vector<KeptTensor>{{"ema", sizes}};
    }
    void update(TrainedTensor&, const UpdateStep&) const override {}
  };
  TrainTables tables;
  tables.optimizers.add({"none", "", [](const OptimizerConfig&) { return std::shared_ptr<const UpdateRule>(); }});
  tables.optimizers.add({"throws", "", [](const OptimizerConfig&) -> std::shared_ptr<const UpdateRule> {
                           throw std::runtime_error("broken on purpose");
                         }});
  tables.optimizers.add({"twice", "", [](const OptimizerConfig&) { return std::make_shared<const Twice>(); }});
  tables.lr_schedules.add({"negative", "", [](const LrScheduleConfig&) -> LearningRate {
                             return [](double, std::int64_t) { return -1.0; };
                           }});
  Small the;
  const auto trainer_of = [&](const std::string& keys, const std::string& more = "") {
    Config config = with_optimizer(keys, more);
    return Trainer(assemble(the.model, the.data, config, {}, tables));
  };
  CHECK_THROWS_WITH(trainer_of("type: none"), Catch::Contains("train.optimizer.type: the plug-in's none failed to be "
                                                              "made: it gave nothing"));
  CHECK_THROWS_WITH(trainer_of("type: throws"), Catch::EndsWith("failed to be made: broken on purpose"));
  CHECK_NOTHROW(trainer_of("type: twice"));
  CHECK_THROWS_WITH(
      trainer_of("type: twice", ", ema: {}"),
      Catch::Contains("keeps two tensors 'ema' beside a parameter [16, 6]") && Catch::EndsWith("leave train.ema out"));
  Config config = with_optimizer("type: sgd");
  config.train.lr_schedule = {};
  config.train.lr_schedule.plugin = {"negative", load_config_text("{}", "schedule")};
  Trainer trainer(assemble(the.model, the.data, config, {}, tables));
  CHECK_THROWS_WITH(trainer.fit({}), Catch::Contains("the schedule negative gave the rate -1 for step 1"));
}

TEST_CASE("an optimizer that nobody has is refused where it is named, with the names of plug-ins", "[parity]") {
  Small the;
  const auto refusal = [&](const std::string& keys) {
    return thrown_by([&] { assemble(the.model, the.data, with_optimizer(keys), {}, with_signs()); });
  };
  CHECK(refusal("type: signz") ==
        "job.yaml:3:83: train.optimizer.type: got signz, expected one of sgd, adam, adamw, rmsprop, adagrad, "
        "rowwise_adagrad, adafactor, "
        "signs; did you mean 'signs'?");
  CHECK(refusal("type: signs, slw: 0.5") ==
        "job.yaml:3:90: train.optimizer.slw: got an unknown key, expected slow; did you mean 'slow'?");
}
