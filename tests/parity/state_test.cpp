// SPDX-License-Identifier: Apache-2.0
//
// What a layer carries from one step to the next: its value, the same bits for every cut, schedule and way to
// recompute, in evaluations, after a resume, and what is refused.
#include <ATen/ATen.h>

#include "runtime/profile/measure.hpp"
#include "runtime/schedule/generators.hpp"
#include "tests/parity/resume_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

constexpr std::int64_t kWidth = 6;

/// y = x W^T + h, and h becomes h / 2 + y: a leaky memory of what the same row of earlier batches was.
class Leaky : public Layer {
 public:
  std::string type() const override { return "leaky"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    LayerDescription description = described({inputs[0]}, part_);
    description.states = {{"h", {kWidth}}};
    return description;
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor h = context.state("h"), y = part_(context, inputs[0]) + h;
    context.set_state("h", h / 2 + y);
    return {y};
  }

 private:
  LinearPart part_{"", kWidth, kWidth};
};

/// The sum of all that a row was.
class Sums : public Layer {
 public:
  explicit Sums(std::int64_t wrong = 0, std::string name = "sum") : wrong_(wrong), name_(std::move(name)) {}
  std::string type() const override { return "sums"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    LayerDescription description = described({inputs[0]});
    description.states = {{"sum", {kWidth}}};
    return description;
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor sum = context.state(name_) + inputs[0].detach();
    context.set_state(name_, wrong_ > 0 ? sum.narrow(1, 0, wrong_) : sum);
    return {inputs[0] * 1.0};
  }

 private:
  std::int64_t wrong_;
  std::string name_;
};

Model leaky_model() {
  return {"leaky",
          {{"a", std::make_shared<Leaky>()},
           {"act", std::make_shared<Activation>("tanh")},
           {"b", std::make_shared<Leaky>()},
           {"out", std::make_shared<Linear>(kWidth, 3)}}};
}

/// 21 samples in batches of 8 and slices of 2, 2, 2, 1 and 1: the last batch of an epoch has 5 rows.
Config config_here() {
  return small_config("mean_squared_error", 8, 5);
}

Model sums_model(std::int64_t wrong = 0, const std::string& name = "sum") {
  return {"sums", {{"sums", std::make_shared<Sums>(wrong, name)}, {"out", std::make_shared<Linear>(kWidth, 3)}}};
}

}  // namespace

TEST_CASE("a state is what its rows were, batch after batch, a short one too", "[parity]") {
  const DataSplits data = regression_data(21, kWidth, 3);
  const Config config = config_here();
  const RunRecord record = reference_run(sums_model(), data, config);
  Sampler sampler(21, config.seed);
  at::Tensor expected = at::zeros({8, kWidth});
  std::int64_t position = 0;
  for (std::int64_t step = 0; step < config.train.steps; ++step) {
    const std::vector<std::int64_t> samples = sampler.batch(position, 8);
    expected.narrow(0, 0, static_cast<std::int64_t>(samples.size())).add_(data.train->read(samples)[0]);
    position += static_cast<std::int64_t>(samples.size());
  }
  REQUIRE(record.buffers.size() == 1);
  CHECK(at::equal(record.buffers[0].value, expected));
  // The planner counts what is kept.
  const Trainer trainer(sums_model(), data, one_worker(config));
  CHECK(carried_bytes(trainer.graph(), 0, config.train.batch) == static_cast<double>(expected.nbytes()));
  CHECK(carried_bytes(trainer.graph(), 1, config.train.batch) == 0);
}

TEST_CASE("layers with state train to the same bits for every cut and schedule, recomputed or not", "[parity]") {
  const Model model = leaky_model();
  const DataSplits data = regression_data(21, kWidth, 3);
  const Config config = config_here();
  const RunRecord reference = reference_run(model, data, config);
  CHECK(reference.buffers.size() == 2);
  for (const ScheduleGenerator& schedule : schedule_generators()) {
    if (!schedule.virtual_stages.allows(1)) continue;
    for (int stages = 1; stages <= 4; ++stages)
      for (const Recompute recompute : {Recompute::never, Recompute::always}) {
        CAPTURE(schedule.name, stages, recompute);
        Config tested = with_pipeline(config, stages, schedule.name);
        tested.pipeline.recompute = recompute;
        CHECK(difference(reference, model, data, tested) == "");
      }
  }
}

TEST_CASE("a run with state is resumed to the same bits with another cut", "[parity]") {
  const Model model = leaky_model();
  const DataSplits data = regression_data(21, kWidth, 3);
  Config config = config_here();
  config.checkpoint.every = "1";
  const TemporaryFolder folder;
  Config first = with_pipeline(config, 2, "1f1b");
  first.train.stop_after = 2;
  RunRecord run;
  append(run, next_leg(model, data, first, folder.path()));
  append(run, next_leg(model, data, with_pipeline(config, 3, "gpipe"), folder.path()));
  const Trainer trainer(model, data, one_worker(config));
  CHECK(first_difference(reference_run(model, data, config), run, trainer.graph()).value_or("") == "");
}

TEST_CASE("an evaluation starts from zeros and leaves the state of the training alone", "[parity]") {
  const Model model = leaky_model();
  DataSplits data = regression_data(21, kWidth, 3);
  data.eval = data.train;
  Config config = config_here();
  const RunRecord without = reference_run(model, data, config);
  config.train.eval_every = 2;
  config.train.eval_batch = 16;  // more rows than the training's state has
  const RunRecord with = reference_run(model, data, config);
  REQUIRE(with.buffers.size() == without.buffers.size());
  for (std::size_t i = 0; i < with.buffers.size(); ++i) CHECK(with.buffers[i].hash == without.buffers[i].hash);
}

TEST_CASE("a state of other sizes, or none, is the mistake of its layer", "[parity]") {
  const DataSplits data = regression_data(21, kWidth, 3);
  CHECK_THROWS_WITH(
      reference_run(sums_model(2), data, config_here()),
      Catch::Contains("layer 'sums' (sums)") &&
          Catch::Contains("forward() sets the state 'sum' to the sizes [2, 2], describe() declares [2, 6]"));
  CHECK_THROWS_WITH(
      reference_run(sums_model(0, "sun"), data, config_here()),
      Catch::Contains("forward() asks for the state 'sun', which describe() does not declare; it declares "
                      "sum; did you mean 'sum'?"));
}
