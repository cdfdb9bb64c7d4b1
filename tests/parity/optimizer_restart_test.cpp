// SPDX-License-Identifier: Apache-2.0
//
// Going on with an optimizer whose state a checkpoint does not have.
#include <map>

#include "tests/parity/optimizer_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

std::map<std::int64_t, double> training_losses(const RunRecord& run) {
  std::map<std::int64_t, double> losses;
  for (const StepResult& result : run.results)
    if (result.mode == Mode::train) losses[result.step] = result.loss();
  return losses;
}

}  // namespace

TEST_CASE("an optimizer whose state a checkpoint lacks starts anew, knowingly, and its steps count from there",
          "[parity]") {
  Small the;
  const auto stopped_after = [&](const std::string& optimizer, std::int64_t steps, const std::string& folder) {
    the.config = with_optimizer(optimizer);
    the.config.train.clip_grad_norm = 0;
    the.config.train.lr_schedule = {};
    the.config.checkpoint.every = "1";
    the.config.checkpoint.keep = 9;
    Config first = the.config;
    first.train.stop_after = steps;
    next_leg(the.model, the.data, first, folder);
    return checkpoint_path(folder, steps);
  };
  const TemporaryFolder folder;
  const std::string checkpoint = stopped_after("type: sgd, momentum: 0.9", 2, folder.path());
  the.config.train.optimizer = with_optimizer("type: adamw, weight_decay: 0").train.optimizer;
  const ResumeRules knowingly = {.changes = {"train.optimizer"}};
  {
    Trainer refused(the.model, the.data, the.config);
    CHECK_THROWS_WITH(refused.resume(checkpoint),
                      Catch::Contains("train.optimizer.type: got adamw, expected sgd") &&
                          Catch::EndsWith("knowingly: --change train.optimizer.type=adamw"));
    Trainer by_type(the.model, the.data, the.config);
    CHECK_NOTHROW(by_type.resume(checkpoint, {.changes = {"train.optimizer.type"}}));
  }

  Trainer trainer(the.model, the.data, with_pipeline(the.config, 3, "1f1b"));
  trainer.resume(checkpoint, knowingly);
  CHECK_THAT(trainer.resumption().changed.back(), Catch::StartsWith("the optimizer's state begins anew"));
  const RunRecord unbroken = record_run(trainer, {.checkpoints = folder.path()});
  // Adam's first step, its bias corrected, goes by lr wherever eps does not count (Kingma, Ba, 2015, 2.1).
  const std::string next = checkpoint_path(folder.path(), 3);
  const at::Tensor moved =
      (saved(next, TensorKind::weight, "out.weight") - saved(checkpoint, TensorKind::weight, "out.weight")).abs();
  CHECK(moved.max().item<double>() <= 0.01 * 1.001);
  CHECK(moved.median().item<double>() >= 0.01 * 0.999);
  CHECK(state_of(CheckpointStore(next)).optimizer_after == 2);
  CHECK_FALSE(CheckpointStore(next).has(TensorKind::optimizer, "out.weight.momentum_buffer"));

  // Gone on with from a checkpoint behind the change, it counts on; once more from before it, it starts once more.
  for (const auto& [from, rules] : {std::pair(checkpoint_path(folder.path(), 4), ResumeRules{}),
                                    std::pair(checkpoint_path(folder.path(), 2), knowingly)}) {
    Trainer again(the.model, the.data, with_pipeline(the.config, 2, "gpipe"));
    again.resume(from, rules);
    const RunRecord rest = record_run(again);
    const std::map<std::int64_t, double> losses = training_losses(rest), expected = training_losses(unbroken);
    CHECK(losses.size() == static_cast<std::size_t>(5 - again.start().step));
    for (const auto& [step, loss] : losses) CHECK(loss == expected.at(step));
    REQUIRE(rest.parameters.front().index == unbroken.parameters.front().index);
    CHECK(rest.parameters.front().hash == unbroken.parameters.front().hash);
  }

  SECTION("a type that keeps tensors of the same names starts anew too, other numbers of one type do not") {
    const TemporaryFolder other;
    const std::string adam = stopped_after("type: adam", 2, other.path());
    the.config.train.optimizer.weight_decay = 0.1;
    Trainer decaying(the.model, the.data, the.config);
    decaying.resume(adam, knowingly);
    CHECK(decaying.start().optimizer_after == 0);
    the.config.train.optimizer.type = OptimizerType::adamw;
    Trainer decoupled(the.model, the.data, the.config);
    decoupled.resume(adam, knowingly);
    CHECK(decoupled.start().optimizer_after == 2);
  }
  SECTION("what was frozen has no state, averages go on") {
    const TemporaryFolder other;
    the.config = with_optimizer("type: adamw", ", ema: {decay: 0.75}");
    the.config.checkpoint.every = "1";
    the.config.train.freeze = {"fc.0.*"};
    the.config.train.stop_after = 2;
    next_leg(the.model, the.data, the.config, other.path());
    the.config.train.freeze.clear();
    the.config.train.stop_after = 1;
    Trainer thawed(the.model, the.data, the.config);
    thawed.resume(checkpoint_path(other.path(), 2), {.changes = {"train.freeze"}});
    CHECK(thawed.start().optimizer_after == 2);
    thawed.fit({.checkpoints = other.path()});
    const auto average = [&](std::int64_t after) {
      return saved(checkpoint_path(other.path(), after), TensorKind::optimizer, "out.weight.ema");
    };
    const at::Tensor weight = saved(checkpoint_path(other.path(), 3), TensorKind::weight, "out.weight");
    CHECK(at::equal(average(3), average(2).lerp(weight, 0.25)));
  }
}
