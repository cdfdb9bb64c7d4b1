// SPDX-License-Identifier: Apache-2.0
//
// A learning rate that follows evaluations: the same bits for every cut, resumed anywhere; what a resume compares.
#include <atomic>
#include <map>

#include "tests/parity/resume_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// A learning rate that is reduced while it trains: no evaluation is good enough.
Config falling() {
  Config config = small_config("mean_squared_error", 8, 3);
  config.train.optimizer = {};
  config.train.optimizer.type = OptimizerType::sgd;
  config.train.optimizer.lr = 0.01;
  config.train.optimizer.momentum = 0.9;
  config.train.steps = 12;
  config.train.eval_every = 2;
  config.train.eval_batch = 4;
  config.train.lr_schedule = {};
  config.train.lr_schedule.type = LrScheduleType::plateau;
  config.train.lr_schedule.factor = 0.5;
  config.train.lr_schedule.patience = 0;
  config.train.lr_schedule.threshold = 0.9;
  config.train.lr_schedule.cooldown = 1;
  return config;
}

class SignalAt : public Observer {
 public:
  SignalAt(int result, std::atomic<bool>& signalled) : result_(result), signalled_(signalled) {}
  void on_result(const StepResult&) override {
    if (--result_ == 0) signalled_ = true;
  }

 private:
  int result_;
  std::atomic<bool>& signalled_;
};

std::vector<double> rates_of(const RunRecord& run) {
  std::vector<double> rates;
  for (const StepResult& result : run.results)
    if (result.mode == Mode::train) rates.push_back(result.learning_rate);
  return rates;
}

}  // namespace

TEST_CASE("plateau reduces the rate two steps after an evaluation, with the same bits for every split", "[parity]") {
  const Small the;
  for (const std::int64_t every : {1, 2, 3}) {
    INFO("every " << every);
    Config config = falling();
    config.train.eval_every = every;
    const RunRecord reference = reference_run(the.model, the.data, config);
    const std::vector<double> rates = rates_of(reference);
    PlateauState state;
    std::vector<double> expected(rates.size(), 0.01);
    EvaluationSum sum;
    for (const StepResult& result : reference.results)
      if (result.mode == Mode::evaluate)
        if (const std::optional<StepResult> all = sum.add(result)) {
          count_evaluation(config.train.lr_schedule, state, result.step, all->loss());
          for (std::int64_t step = result.step + 2; step <= 12; ++step)
            expected[static_cast<std::size_t>(step - 1)] = reduced_rate(config.train.lr_schedule, state, 0.01, step);
        }
    CHECK(rates == expected);
    CHECK(rates.back() < 0.01);
    for (const char* schedule : {"gpipe", "1f1b", "zb_h1"})
      for (const int stages : {2, 4})
        CHECK(difference(reference, the.model, the.data, with_pipeline(config, stages, schedule)) == "");
  }
}

TEST_CASE("plateau goes on from every step as if nothing had been", "[parity]") {
  const Small the;
  Config config = falling();
  config.checkpoint.every = "1";
  const RunRecord unbroken = reference_run(the.model, the.data, config);
  for (std::int64_t stop = 1; stop <= 11; ++stop) {
    INFO("stopped after " << stop);
    const TemporaryFolder folder;
    Config first = with_pipeline(config, 2, "1f1b");
    first.train.stop_after = stop;
    RunRecord run = next_leg(the.model, the.data, first, folder.path());
    append(run, next_leg(the.model, the.data, with_pipeline(config, 3, "gpipe"), folder.path()));
    CHECK(rates_of(run) == rates_of(unbroken));
    CHECK(first_difference(unbroken, run, Trainer(the.model, the.data, config).graph()).value_or("") == "");
  }
}

TEST_CASE("plateau goes on after a signal, in an evaluation, behind one, or elsewhere", "[parity]") {
  const Small the;
  Config config = falling();
  config.checkpoint.every = "end";
  const RunRecord unbroken = reference_run(the.model, the.data, config);
  const std::vector<double> rates = rates_of(unbroken);
  for (int result = 2; result <= 14; ++result) {
    INFO("signalled by result " << result);
    const TemporaryFolder folder;
    std::atomic<bool> signalled = false;
    SignalAt observer(result, signalled);
    Trainer first(the.model, the.data, with_pipeline(config, 2, "1f1b"));
    first.fit({.observer = &observer, .signalled = &signalled, .checkpoints = folder.path()});
    const std::int64_t step = list_checkpoints(folder.path()).back().step;
    REQUIRE(step < 12);
    const RunRecord rest = next_leg(the.model, the.data, with_pipeline(config, 3, "gpipe"), folder.path());
    CHECK(rates_of(rest) == std::vector<double>(rates.begin() + step, rates.end()));
    REQUIRE(rest.parameters.size() == unbroken.parameters.size());
    std::map<int, std::uint64_t> expected;
    for (const FinalParameter& parameter : unbroken.parameters) expected[parameter.index] = parameter.hash;
    for (const FinalParameter& parameter : rest.parameters) CHECK(parameter.hash == expected.at(parameter.index));
  }
}

TEST_CASE("what plateau evaluates is part of what a resume compares", "[parity]") {
  const Small the;
  Config config = falling();
  config.checkpoint.every = "1";
  Config first = config;
  first.train.stop_after = 2;
  const TemporaryFolder folder;
  next_leg(the.model, the.data, first, folder.path());
  config.train.eval_every = 4;
  Trainer trainer(the.model, the.data, config);
  CHECK_THROWS_WITH(trainer.resume(checkpoint_path(folder.path(), 2)),
                    Catch::Contains("train.eval_every: got 4, expected 2 as in the checkpoint"));
  CHECK_NOTHROW(trainer.resume(checkpoint_path(folder.path(), 2), {.changes = {"train.eval_every"}}));
}

TEST_CASE("what a plateau evaluates on is compared, and what others evaluate on is not", "[parity]") {
  Config config = Small().config;
  config.data = load_config_text("type: synthetic\nsamples: 8\neval_samples: 10\neval: a.csv\n", "data");
  const auto recorded = [&] {
    std::vector<std::string> keys;
    for (const auto& [key, value] : numerics_of(config))
      if (key.starts_with("data.eval") || key.starts_with("train.eval")) keys.push_back(key);
    return keys;
  };
  CHECK(recorded().empty());
  config.train.lr_schedule = {};
  config.train.lr_schedule.type = LrScheduleType::plateau;
  CHECK(recorded() ==
        std::vector<std::string>{"train.eval_every", "train.eval_batch", "train.eval_steps", "data.eval_samples"});
}
