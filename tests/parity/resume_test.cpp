// SPDX-License-Identifier: Apache-2.0
//
// A run that stops and goes on, on another number of workers and in another schedule, computes what the unbroken run
// does: every loss, gradient, norm and weight.
#include <atomic>
#include <filesystem>
#include <fstream>

#include "tests/parity/resume_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

namespace fs = std::filesystem;

struct Leg {
  int stages;
  const char* schedule;
  int steps;  // 0: to the end
};

// 8 of 21 samples a step: the legs end in the middle of the first epoch, behind its short last batch, and in the
// second.
const std::vector<Leg> kLegs = {{4, "gpipe", 2}, {2, "1f1b", 1}, {3, "gpipe", 1}, {1, "1f1b", 0}};

std::string broken_run(const RunRecord& unbroken, const Model& model, const DataSplits& data, const Config& config) {
  const TemporaryFolder folder;
  RunRecord run;
  for (const Leg& leg : kLegs) {
    Config of_leg = with_pipeline(config, leg.stages, leg.schedule);
    of_leg.train.stop_after = leg.steps;
    append(run, next_leg(model, data, of_leg, folder.path()));
  }
  const Trainer trainer(model, data, one_worker(config));
  return first_difference(unbroken, run, trainer.graph()).value_or("");
}

std::string stop_and_go(const Model& model, const DataSplits& data, const Config& config) {
  return broken_run(reference_run(model, data, config), model, data, config);
}

/// A run whose step 2 is not finite.
Small blowing_up() {
  Small the;
  the.config.train.optimizer = {};
  the.config.train.optimizer.type = OptimizerType::sgd;
  the.config.train.optimizer.lr = 1e30;
  the.config.train.lr_schedule = {};
  the.config.train.clip_grad_norm = 0;
  return the;
}

}  // namespace

TEST_CASE("a run that stops and goes on with other stages and schedules gives the bits of the unbroken one",
          "[parity]") {
  const Config tokens = small_config("sparse_categorical_cross_entropy", 8, 5);
  for (const bool tied : {false, true}) {
    INFO("gpt tied=" << tied);
    CHECK(stop_and_go(small_gpt(3, 0.2, tied), token_data(21, 8, 11), tokens) == "");
  }
  CHECK(stop_and_go(mlp_with_skip(0.25, true), regression_data(21, 6, 3), small_config("mean_squared_error", 8, 3)) ==
        "");
}

TEST_CASE("optimizer state of every kind is resumed", "[parity]") {
  Small the;
  the.config.train.clip_grad_norm = 0;
  SECTION("sgd without momentum has none") {
    the.config.train.optimizer = {};
    the.config.train.optimizer.type = OptimizerType::sgd;
    the.config.train.optimizer.lr = 0.05;
  }
  SECTION("sgd with momentum and dampening") {
    the.config.train.optimizer = {};
    the.config.train.optimizer.type = OptimizerType::sgd;
    the.config.train.optimizer.lr = 0.05;
    the.config.train.optimizer.momentum = 0.9;
    the.config.train.optimizer.dampening = 0.1;
  }
  SECTION("adam with groups and frozen parameters") {
    the.config.train.optimizer.type = OptimizerType::adam;
    the.config.train.optimizer.groups = {{{"fc.1.*"}, 0.5, 0.0}};
    the.config.train.freeze = {"fc.0.*"};
  }
  CHECK(stop_and_go(the.model, the.data, the.config) == "");
}

TEST_CASE("a bf16 run is resumed, written in place", "[parity]") {
  Config config = small_config("sparse_categorical_cross_entropy", 8, 4);
  config.train.precision = Precision::bf16;
  config.checkpoint.background = Background::never;
  CHECK(stop_and_go(small_gpt(2, 0.2, true), token_data(21, 8, 11), config) == "");
}

TEST_CASE("an fp64 run is resumed, batch norm's statistics too", "[parity]") {
  Config config = small_config("sparse_categorical_cross_entropy", 8, 4);
  config.train.precision = Precision::fp64;
  CHECK(stop_and_go(model_of("type: cnn, inputs: 3, classes: 5, channels: 4, depth: 2"), image_data(21, 3, 8, 5, false),
                    config) == "");
}

TEST_CASE("a run goes on in another precision knowingly, from the same numbers", "[parity]") {
  const auto loss_of = [](const RunRecord& run, std::int64_t step) {
    for (const StepResult& result : run.results)
      if (result.mode == Mode::train && result.step == step) return result.loss();
    return 0.0;
  };
  Small the;
  const TemporaryFolder folder;
  Config first = the.config;
  first.train.stop_after = 2;
  next_leg(the.model, the.data, first, folder.path());
  const std::string single = checkpoint_path(folder.path(), 2);
  Config wide = the.config;
  wide.train.precision = Precision::fp64;
  wide.train.stop_after = 1;
  Trainer trainer(the.model, the.data, one_worker(wide));
  CHECK_THROWS_WITH(trainer.resume(single), Catch::EndsWith("--change train.precision=fp64"));
  trainer.resume(single, {.changes = {"train.precision"}});
  const RunRecord run = record_run(trainer, {.checkpoints = folder.path()});
  // The first loss is that of the same weights, to what float32 rounds.
  const RunRecord unbroken = reference_run(the.model, the.data, the.config);
  CHECK(loss_of(run, 3) == Approx(loss_of(unbroken, 3)).epsilon(1e-6));
  CHECK(loss_of(run, 3) != loss_of(unbroken, 3));
  Trainer back(the.model, the.data, one_worker(the.config));
  back.resume(checkpoint_path(folder.path(), 3), {.changes = {"train.precision"}});
  CHECK(loss_of(record_run(back), 4) == Approx(loss_of(unbroken, 4)).epsilon(1e-5));
}

TEST_CASE("a run resumed at the wrong place is caught", "[parity]") {
  // The comparison above can fail: a sample that was consumed twice gives other losses.
  Small the;
  const RunRecord unbroken = reference_run(the.model, the.data, the.config);
  RunRecord run;
  const TemporaryFolder folder;
  Config first = the.config;
  first.train.stop_after = 2;
  append(run, next_leg(the.model, the.data, first, folder.path()));
  fs::remove_all(list_checkpoints(folder.path()).back().path);
  append(run, next_leg(the.model, the.data, the.config, folder.path()));  // from step 1, again
  const Trainer trainer(the.model, the.data, one_worker(the.config));
  CHECK(first_difference(unbroken, run, trainer.graph()).has_value());
}

TEST_CASE("a run that is asked to move layers leaves at its next checkpoint, and other cuts go on to the same bits",
          "[parity]") {
  Small the;
  the.config.checkpoint.every = "2";
  const TemporaryFolder folder;
  const Config before = with_pipeline(the.config, 2, "1f1b");
  const std::atomic<bool> replan{true};
  Trainer trainer(the.model, the.data, before);
  RunRecord run = record_run(trainer, {.checkpoints = folder.path()}, {.replan = &replan});
  CHECK(run.results.back().step == 2);
  CHECK(steps_in(folder.path()) == std::vector<std::int64_t>{2});
  Config after = before;
  after.pipeline.partition.counts = {2, trainer.graph().layer_count() - 2};
  append(run, next_leg(the.model, the.data, after, folder.path()));
  const RunRecord unbroken = reference_run(the.model, the.data, the.config);
  CHECK(first_difference(unbroken, run, trainer.graph()).value_or("") == "");
}

TEST_CASE("checkpoints in the background of training change no bit, and keep prunes the oldest", "[parity]") {
  Small the;
  the.config.checkpoint.keep = 2;
  const RunRecord plain = reference_run(the.model, the.data, the.config);
  for (const Background background : {Background::always, Background::never}) {
    INFO(to_string(background));
    const TemporaryFolder folder;
    the.config.checkpoint.background = background;
    Trainer trainer(the.model, the.data, with_pipeline(the.config, 3, "1f1b"));
    const RunRecord saving = record_run(trainer, {.checkpoints = folder.path()});
    CHECK(first_difference(plain, saving, trainer.graph()).value_or("") == "");
    CHECK(steps_in(folder.path()) == std::vector<std::int64_t>{4, 5});
    for (const CheckpointPlace& place : list_checkpoints(folder.path())) CHECK(find_damage(place.path).empty());
    CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 2);  // nothing unfinished
  }
}

TEST_CASE("the best checkpoint outlives keep and has a link", "[parity]") {
  Small the;
  the.config.checkpoint.every = "2";
  the.config.checkpoint.keep = 1;
  the.config.checkpoint.best = kEvalLoss;
  the.config.train.steps = 8;
  the.config.train.lr_schedule = {};
  the.config.train.optimizer.lr = 0.03;
  // Training draws the outputs to 1, away from what the evaluation wants: each evaluation is worse than the one before.
  the.data = {.train = std::make_shared<SameTargets>(the.data.train, 1),
              .eval = std::make_shared<SameTargets>(the.data.eval, -1)};
  const TemporaryFolder folder;
  Trainer trainer(the.model, the.data, with_pipeline(the.config, 2, "1f1b"));
  const RunRecord run = record_run(trainer, {.checkpoints = folder.path()});
  std::map<std::int64_t, StepResult> sums;
  for (const StepResult& result : run.results)
    if (result.mode == Mode::evaluate) sums[result.step].add(result);
  std::int64_t best = 0;
  double least = 1e30;
  for (const auto& [step, sum] : sums)
    if (sum.loss() < least) {
      least = sum.loss();
      best = step;
    }
  REQUIRE(best > 0);
  REQUIRE(best < 8);
  CHECK(steps_in(folder.path()) == std::vector<std::int64_t>{best, 8});
  CHECK(fs::canonical(fs::path(folder.path()) / "best") == fs::canonical(checkpoint_path(folder.path(), best)));
}

/// Data in whose reading a signal comes: in the middle of that step.
class SignalInStep : public Dataset {
 public:
  SignalInStep(std::shared_ptr<const Dataset> data, int step, std::atomic<bool>& signalled)
      : data_(std::move(data)), step_(step), signalled_(signalled) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override { return data_->entries(rows); }
  std::int64_t size() const override { return data_->size(); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    // One by one they are read for the record of the data.
    if (samples.size() > 1 && ++batches_ == step_) signalled_ = true;
    return data_->read(samples);
  }

 private:
  std::shared_ptr<const Dataset> data_;
  int step_;
  std::atomic<bool>& signalled_;
  mutable int batches_ = 0;
};

class StopOf : public Observer {
 public:
  void on_result(const StepResult&) override {}
  void on_stop(StopReason reason) override { reason_ = reason; }
  StopReason reason() const { return reason_; }

 private:
  StopReason reason_ = StopReason::none;
};

TEST_CASE("a job that is told to stop finishes the step it is in, and leaves a checkpoint of it", "[parity]") {
  Small the;
  the.config.checkpoint.every = "end";
  the.config.workers.readers = 0;  // the signal comes when the step's data is read
  const RunRecord unbroken = reference_run(the.model, the.data, the.config);
  for (const int step : {1, 3}) {
    const TemporaryFolder folder;
    std::atomic<bool> signalled{false};
    DataSplits data = the.data;
    data.train = std::make_shared<SignalInStep>(the.data.train, step, signalled);
    StopOf stop;
    RunOptions options;
    options.observer = &stop;
    options.signalled = &signalled;
    options.checkpoints = folder.path();
    Trainer trainer(the.model, data, with_pipeline(the.config, 3, "gpipe"));
    trainer.fit(options);
    CHECK(stop.reason() == StopReason::signal);
    CHECK(steps_in(folder.path()) == std::vector<std::int64_t>{step});
    RunRecord rest = next_leg(the.model, the.data, with_pipeline(the.config, 2, "1f1b"), folder.path());
    RunRecord expected = unbroken;
    std::erase_if(expected.results,
                  [&](const StepResult& r) { return r.step < step || (r.mode == Mode::train && r.step == step); });
    CHECK(first_difference(expected, rest, trainer.graph()).value_or("") == "");
  }
}

TEST_CASE("a job that is told to stop before its first step trains none, and has nothing to save", "[parity]") {
  Small the;
  const TemporaryFolder folder;
  const std::atomic<bool> signalled{true};
  StopOf stop;
  for (const bool measures : {false, true}) {
    Config config = with_pipeline(the.config, 2, measures ? "auto" : "1f1b");
    Trainer trainer(the.model, the.data, config);
    RunOptions options;
    options.observer = &stop;
    options.signalled = &signalled;
    options.checkpoints = folder.path();
    trainer.fit(options);
    CHECK(stop.reason() == StopReason::signal);
    CHECK(steps_in(folder.path()).empty());
  }
}

TEST_CASE("that the last step was not finite is the reason to stop, whatever else was", "[parity]") {
  Small the = blowing_up();
  the.config.workers.readers = 0;
  for (const bool by_signal : {true, false}) {
    const TemporaryFolder folder;
    std::atomic<bool> signalled{false};
    DataSplits data = the.data;
    if (by_signal) data.train = std::make_shared<SignalInStep>(the.data.train, 2, signalled);
    the.config.train.stop_after = by_signal ? 0 : 2;
    StopOf stop;
    RunOptions options;
    options.observer = &stop;
    options.signalled = &signalled;
    options.checkpoints = folder.path();
    Trainer(the.model, data, with_pipeline(the.config, 2, "1f1b")).fit(options);
    CHECK(stop.reason() == StopReason::not_finite);
    CHECK(steps_in(folder.path()) == std::vector<std::int64_t>{1});
  }
}

TEST_CASE("nothing is published from the first step on that is not finite", "[parity]") {
  Small the = blowing_up();
  for (const bool stops : {true, false}) {
    const TemporaryFolder folder;
    the.config.train.stop_on_nan = stops;
    Trainer trainer(the.model, the.data, with_pipeline(the.config, 2, "1f1b"));
    record_run(trainer, {.checkpoints = folder.path()});
    CHECK(steps_in(folder.path()) == std::vector<std::int64_t>{1});
    CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
  }
}

TEST_CASE("what a job that died left unfinished is cleared, and a future that will not be is set aside", "[parity]") {
  Small the;
  const TemporaryFolder folder;
  the.config.train.steps = 4;
  the.config.train.lr_schedule.decay_steps = 5;
  next_leg(the.model, the.data, the.config, folder.path());
  fs::create_directory(checkpoint_path(folder.path(), 5) + ".part");
  std::ofstream(checkpoint_path(folder.path(), 5) + ".part/model-00001-of-00001.safetensors") << "half";
  CHECK(steps_in(folder.path()) == std::vector<std::int64_t>{2, 3, 4});
  the.config.train.steps = 5;
  Trainer trainer(the.model, the.data, the.config);
  trainer.resume(checkpoint_path(folder.path(), 3));
  record_run(trainer, {.checkpoints = folder.path()});
  CHECK(steps_in(folder.path()) == std::vector<std::int64_t>{3, 4, 5});
  CHECK(fs::exists(folder.path() + "/superseded-step-00000004"));
  CHECK_FALSE(fs::exists(checkpoint_path(folder.path(), 5) + ".part"));
}

TEST_CASE("a path that is no UTF-8 can be recorded, and resumed from", "[parity]") {
  Small the;
  the.config.data = load_config_text("{type: csv, train: \"gr\xf6\xdf\x65.csv\"}", "test");
  CHECK(stop_and_go(the.model, the.data, the.config) == "");
}
