// SPDX-License-Identifier: Apache-2.0
#include "runtime/config/plugin_kind.hpp"

#include "runtime/config/lr_schedule.hpp"
#include "tests/test.hpp"
#include "tests/unit/thrown_by.hpp"

using namespace lockstep;
using test::thrown_by;

namespace {

Config config(const std::string& train) {
  return read_config(load_config_text(
      "model: {type: a}\ndata: {type: b}\ntrain:\n  steps: 20\n  batch: 4\n  loss: mse\n" + train, "job.yaml"));
}

Table<LrScheduleKind> with_halving() {
  Table<LrScheduleKind> kinds = lr_schedule_kinds();
  kinds.add({"halving", "half the rate every so many steps", [](const LrScheduleConfig& schedule) -> LearningRate {
               const auto every = schedule.plugin.keys.get<std::int64_t>("every", 5, at_least<std::int64_t>(1));
               return [every](double base, std::int64_t step) { return step > every ? base / 2 : base; };
             }});
  return kinds;
}

std::string refusal(const std::string& train) {
  return thrown_by([&] { learning_rate_of(config(train).train, with_halving()); });
}

}  // namespace

TEST_CASE("a plug-in's schedule reads keys of its own and has the warm-up of all schedules", "[unit]") {
  const Config job = config("  lr_schedule: {type: halving, warmup_steps: 2, every: 4}\n");
  const LearningRate rate = learning_rate_of(job.train, with_halving());
  CHECK(rate(1.0, 1) == 0.5);
  CHECK(rate(1.0, 4) == 1.0);
  CHECK(rate(1.0, 5) == 0.5);
  CHECK_FALSE(job.train.lr_schedule.decays());
}

TEST_CASE("a schedule of ours comes from the table with its end at train.steps", "[unit]") {
  const Config job = config("  lr_schedule: {type: linear}\n");
  CHECK(learning_rate_of(job.train, lr_schedule_kinds())(1.0, 20) == 0.0);
  CHECK(learning_rate_of(job.train, lr_schedule_kinds())(1.0, 10) == 0.5);
}

TEST_CASE("what is wrong with a plug-in's type or keys is said with its place", "[unit]") {
  CHECK(refusal("  lr_schedule: {type: halvin}\n") ==
        "job.yaml:7:23: train.lr_schedule.type: got halvin, expected one of constant, linear, cosine, step, wsd, "
        "one_cycle, plateau, halving; did you mean 'halving'?");
  CHECK(refusal("  lr_schedule: {type: halving, evry: 4}\n") ==
        "job.yaml:7:32: train.lr_schedule.evry: got an unknown key, expected every; did you mean 'every'?");
  CHECK(refusal("  lr_schedule: {type: halving, every: 0}\n") ==
        "job.yaml:7:39: train.lr_schedule.every: got 0, expected an integer >= 1");
  CHECK(refusal("  lr_schedule: {type: halving, warmup_steps: -1}\n").find("got -1, expected an integer >= 0") !=
        std::string::npos);
}

TEST_CASE("a plug-in's kind is filled in by a program too, and decides bits", "[unit]") {
  Config job;
  job.train.steps = 3;
  job.train.batch = 4;
  job.train.optimizer.plugin = {"lion", load_config_text("beta1: 0.5\nmore: {deep: [1, 2]}\n", "lion")};
  check_config(job);
  const std::string text = resolved_yaml(job);
  CHECK(text.find("type: lion\n") != std::string::npos);
  CHECK(text.find("beta1: 0.5\n") != std::string::npos);
  CHECK(decides_bits("train.optimizer.beta1"));
  CHECK(decides_bits("train.lr_schedule.sharpness"));
  CHECK(decides_bits("train.ema.decay"));
  CHECK(thrown_by([&] {
          job.train.lr_schedule.plugin = {"nothing", {}};
          learning_rate_of(job.train, lr_schedule_kinds());
        }).starts_with("Config: train.lr_schedule.type: got nothing, expected one of constant, "));
}
