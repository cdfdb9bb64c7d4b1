// SPDX-License-Identifier: Apache-2.0
//
// What evaluations decide beside the learning rate: when training ends, and which checkpoint is the best, by the loss
// or by a metric. The same for every cut, and for a run that stops and goes on.
#include <filesystem>

#include "tests/parity/resume_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

namespace fs = std::filesystem;

/// Training draws the outputs to 1, away from what the evaluation wants: each evaluation is worse than the one before.
struct Worsening : Small {
  Worsening() {
    data = {.train = std::make_shared<SameTargets>(data.train, 1),
            .eval = std::make_shared<SameTargets>(data.eval, -1)};
    config.train.steps = 40;
    config.train.eval_every = 2;
    config.train.lr_schedule = {};
    config.train.optimizer.lr = 0.03;
    config.train.metrics = {"mean_absolute_error"};
    config.train.early_stopping.given = true;
    config.train.early_stopping.patience = 2;
    config.checkpoint.every = "2";
    config.checkpoint.keep = 100;
  }
};

std::int64_t last_trained(const RunRecord& run) {
  std::int64_t last = 0;
  for (const StepResult& result : run.results)
    if (result.mode == Mode::train) last = std::max(last, result.step);
  return last;
}

}  // namespace

TEST_CASE("training ends when evaluations make no progress, at the same step for every cut", "[parity]") {
  for (const std::string watch : {"eval_loss", "mean_absolute_error"}) {
    INFO(watch);
    Worsening the;
    the.config.train.early_stopping.watch = watch;
    const RunRecord reference = reference_run(the.model, the.data, the.config);
    // The evaluation after step 2 is the best; of those after 4, 6 and 8 the third is one too many, which is known
    // when step 9 has begun.
    CHECK(last_trained(reference) == 9);
    CHECK(difference(reference, the.model, the.data, with_pipeline(the.config, 3, "1f1b")) == "");
    the.config.train.early_stopping.patience = 0;
    CHECK(last_trained(reference_run(the.model, the.data, the.config)) == 5);
    the.config.train.early_stopping.patience = 100;
    CHECK(last_trained(reference_run(the.model, the.data, the.config)) == 40);
  }
}

TEST_CASE("a run that stops and goes on ends where the unbroken one does, and stays ended", "[parity]") {
  Worsening the;
  const TemporaryFolder folder;
  the.config.train.stop_after = 5;
  RunRecord run = next_leg(the.model, the.data, with_pipeline(the.config, 2, "1f1b"), folder.path());
  CHECK(last_trained(run) == 5);
  the.config.train.stop_after = 0;
  append(run, next_leg(the.model, the.data, with_pipeline(the.config, 3, "gpipe"), folder.path()));
  CHECK(last_trained(run) == 9);
  CHECK(steps_in(folder.path()).back() == 9);  // it leaves with a checkpoint
  const RunRecord again = next_leg(the.model, the.data, the.config, folder.path());
  CHECK(last_trained(again) == 0);
  the.config.train.early_stopping = {};
  the.config.train.steps = 12;
  CHECK(last_trained(next_leg(the.model, the.data, the.config, folder.path())) == 12);
}

TEST_CASE("the best checkpoint is that of the best evaluation by the metric", "[parity]") {
  Worsening the;
  the.config.train.early_stopping = {};
  the.config.train.steps = 8;
  the.config.checkpoint.keep = 1;
  const auto best_by = [&](const std::string& best) {
    the.config.checkpoint.best = best;
    const TemporaryFolder folder;
    next_leg(the.model, the.data, with_pipeline(the.config, 2, "1f1b"), folder.path());
    const std::string link = fs::canonical(fs::path(folder.path()) / "best").filename();
    // What is saved with step 8 knows the evaluations before its result, whenever it was written.
    const TrainerState state = state_of(CheckpointStore(checkpoint_path(folder.path(), 8)));
    REQUIRE(state.best);
    CHECK(state.best->watched == best);
    CHECK(state.best->step == (link == "step-00000008" ? 6 : 2));
    return link;
  };
  CHECK(best_by("mean_absolute_error") == "step-00000002");  // less is better, and it grows
  CHECK(best_by("eval_loss") == "step-00000002");
  the.data.eval = std::make_shared<SameTargets>(the.data.eval, 1);  // to which training comes nearer, in small steps
  the.config.train.optimizer.lr = 0.003;
  CHECK(best_by("mean_absolute_error") == "step-00000008");
}

TEST_CASE("what is watched has to be measured", "[parity]") {
  Worsening the;
  const auto refused = [&] {
    try {
      Trainer trainer(the.model, the.data, the.config);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(refused().empty());
  the.config.train.early_stopping.watch = "mean_absolute_eror";
  CHECK_THAT(refused(),
             Catch::Contains("train.early_stopping.watch: got 'mean_absolute_eror', which no evaluation gives") &&
                 Catch::Contains("did you mean 'mean_absolute_error'?"));
  the.config.train.early_stopping.watch = kEvalLoss;
  the.config.checkpoint.best = "accuracy";
  CHECK_THAT(refused(), Catch::Contains("checkpoint.best: got 'accuracy', which no evaluation gives; expected one of "
                                        "eval_loss, mean_absolute_error"));
}
