// SPDX-License-Identifier: Apache-2.0
//
// Every schedule gives the bits of one worker, with several stages on a worker, with layers run again instead of kept,
// with workers in other places, with updates that are corrected afterwards, and from a file.
#include <algorithm>
#include <fstream>

#include "runtime/layer/layers.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/measured.hpp"
#include "runtime/schedule/schedule_text.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

// 8 samples a batch do not divide by 5; 21 samples make the last batch of an epoch short: 3 micro-batches.
constexpr std::int64_t kBatch = 8;
constexpr std::int64_t kSamples = 21;
constexpr int kMicroBatches = 5;

struct Case {
  std::string name;
  Model model;
  DataSplits data;
  std::string loss;
};

Case mlp() {
  return {"mlp", mlp_with_skip(0.25, true), regression_data(kSamples, 6, 3), "mean_squared_error"};
}
Case gpt() {
  return {"gpt", small_gpt(4, 0.2, true), token_data(kSamples, 8, 11), "sparse_categorical_cross_entropy"};
}

struct Shape {
  int workers, virtual_stages;
};

std::vector<Shape> shapes_of(const ScheduleGenerator& schedule) {
  const int least = schedule.virtual_stages.least;
  std::vector<Shape> shapes = {{1, least}, {2, least}};
  if (schedule.name != "dualpipev") shapes.push_back({3, least});  // it wants 2 micro-batches per worker
  if (schedule.virtual_stages.allows(3)) shapes.push_back({2, 3});
  return shapes;
}

std::vector<int> reversed(int workers) {
  std::vector<int> places;
  for (int worker = workers; worker-- > 0;) places.push_back(worker);
  return places;
}

// The path of a file in the build folder.
std::string file_of(const std::string& name, const std::string& text) {
  const std::string path = concat(LOCKSTEP_BINARY_DIR, "/", name);
  std::ofstream(path) << text;
  return path;
}

Config with_file(const Config& config, const std::string& path, int stages) {
  return with_pipeline(config, stages, "file:" + path, 0);
}

}  // namespace

TEST_CASE("every schedule, recompute and placement trains to the same bits", "[parity]") {
  const std::vector<Recompute> modes = {Recompute::never, Recompute::except_last, Recompute::always, Recompute::always};
  for (const Case& the : {mlp(), gpt()}) {
    const Config config = small_config(the.loss, kBatch, kMicroBatches);
    const RunRecord reference = reference_run(the.model, the.data, config);
    REQUIRE(reference.results.size() > 5);
    std::size_t turn = 0;
    for (const ScheduleGenerator& schedule : schedule_generators())
      for (const Shape& shape : shapes_of(schedule)) {
        Config tested =
            with_pipeline(config, shape.workers * shape.virtual_stages, schedule.name, shape.virtual_stages);
        tested.pipeline.recompute = modes[turn % modes.size()];
        if (turn % modes.size() == 3) tested.pipeline.recompute_layers = {"*.1"};
        if (turn % 3 == 1) tested.pipeline.placement = reversed(shape.workers);
        tested.train.post_validation = turn % 5 < 2;
        INFO(the.name << ", " << schedule.name << ", " << shape.workers << " workers with " << shape.virtual_stages
                      << ", recompute " << to_string(tested.pipeline.recompute));
        CHECK(difference(reference, the.model, the.data, tested) == "");
        ++turn;
      }
  }
}

TEST_CASE("every way to recompute trains to the same bits, with and without a split backward", "[parity]") {
  const auto kernel = GENERATE(DropoutKernel::torch, DropoutKernel::philox);
  for (const Case& the : {mlp(), gpt()}) {
    Config config = small_config(the.loss, kBatch, kMicroBatches);
    config.kernels.dropout = kernel;
    const RunRecord reference = reference_run(the.model, the.data, config);
    for (const std::string schedule : {"gpipe", "1f1b", "zb_h1"})
      for (const Recompute mode : {Recompute::except_last, Recompute::always}) {
        INFO(the.name << ", " << schedule << ", recompute " << to_string(mode) << ", " << to_string(kernel));
        Config tested = with_pipeline(config, 2, schedule);
        tested.pipeline.recompute = mode;
        CHECK(difference(reference, the.model, the.data, tested) == "");
      }
  }
}

TEST_CASE("an update that is corrected afterwards is the update that waited", "[parity]") {
  const Case the = mlp();
  for (const OptimizerType optimizer : {OptimizerType::sgd, OptimizerType::adam, OptimizerType::adamw})
    for (const double limit : {0.5, 1e9}) {  // bites in every step; never
      Config config = small_config(the.loss, kBatch, kMicroBatches);
      config.train.clip_grad_norm = limit;
      config.train.optimizer.type = optimizer;
      config.train.optimizer.momentum = optimizer == OptimizerType::sgd ? 0.9 : 0.0;
      const RunRecord reference = reference_run(the.model, the.data, config);
      for (const StepResult& result : reference.results)
        if (result.mode == Mode::train) REQUIRE((result.gradient_norm > limit) == (limit < 1));
      for (const int stages : {1, 3}) {
        INFO(to_string(optimizer) << ", limit " << limit << ", " << stages << " stages");
        Config tested = with_pipeline(config, stages, "1f1b");
        tested.train.post_validation = true;
        CHECK(difference(reference, the.model, the.data, tested) == "");
      }
    }
}

TEST_CASE("a schedule from a file trains to the same bits as its generator", "[parity]") {
  const Case the = gpt();
  const Config config = small_config(the.loss, kBatch, kMicroBatches);
  const RunRecord reference = reference_run(the.model, the.data, config);
  const std::string path = file_of("interleaved.csv", to_csv(make_schedule("interleaved_1f1b", {2, 2, kMicroBatches})));
  CHECK(difference(reference, the.model, the.data, with_file(config, path, 4)) == "");
}

TEST_CASE("schedule auto decides by costs, given or measured, and trains to the same bits", "[parity]") {
  const Case the = gpt();
  const Config config = small_config(the.loss, kBatch, kMicroBatches);
  const RunRecord reference = reference_run(the.model, the.data, config);
  Config tested = with_pipeline(config, 4, "auto", 2);
  CHECK(difference(reference, the.model, the.data, tested) == "");  // measured
  tested.pipeline.costs.given = true;
  tested.pipeline.costs.forward_ms = {1, 2, 3, 1};
  CHECK(difference(reference, the.model, the.data, tested) == "");
  tested.pipeline.in_flight_limit = 1;
  tested.pipeline.costs.activation_bytes = {100};
  CHECK_THROWS_AS(Trainer(the.model, the.data, tested), ConfigError);
}

TEST_CASE("a file that sums gradients in another order runs with a warning, to other bits", "[parity]") {
  const Case the = mlp();
  const Config config = small_config(the.loss, kBatch, 4);
  const RunRecord reference = reference_run(the.model, the.data, config);
  Schedule schedule = make_schedule("gpipe", {2, 1, 4});
  for (auto& row : schedule.rows) std::reverse(row.begin() + 4, row.end());
  const std::string path = file_of("backwards.csv", to_csv(schedule));
  Trainer trainer(the.model, the.data, with_file(config, path, 2));
  REQUIRE(trainer.warnings().size() == 1);
  CHECK_THAT(trainer.warnings()[0], Catch::Contains("its bits differ"));
  const auto found = first_difference(reference, record_run(trainer), trainer.graph());
  REQUIRE(found);
  CHECK_THAT(*found, Catch::Contains("step 1 (train): gradient of "));
}

TEST_CASE("a file that does not fit the job is refused", "[parity]") {
  const Case the = mlp();
  const auto refused = [&](const Schedule& schedule, int stages, int micro_batches) -> std::string {
    const std::string path = file_of("unfit.csv", to_csv(schedule));
    try {
      Trainer(the.model, the.data, with_file(small_config(the.loss, kBatch, micro_batches), path, stages));
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  const Schedule good = make_schedule("1f1b", {2, 1, 4});
  CHECK(refused(good, 2, 4).empty());
  CHECK_THAT(refused(good, 3, 4), Catch::Contains("has 2 stages on 2 workers") && Catch::Contains("pipeline.stages=2"));
  CHECK_THAT(refused(good, 2, 5), Catch::Contains("has 4 micro-batches") && Catch::Contains("train.micro_batches=4"));
  Schedule turned = good;
  std::swap(turned.rows[0], turned.rows[1]);
  CHECK_THAT(refused(turned, 2, 4), Catch::Contains("has stage 0 in line 2"));
  turned = good;
  turned.rows[1].pop_back();
  CHECK_THAT(refused(turned, 2, 4), Catch::Contains("1B3 is on no worker"));
}

TEST_CASE("what is measured in flight is what the simulator says, within 5 %", "[parity]") {
  // Deep enough that a message or two, which the simulation of a run in process leaves out, do not show.
  Model wide{"wide", {}};
  for (int i = 0; i < 40; ++i) {
    wide.layers.push_back({concat("fc.", i), std::make_shared<Linear>(64, 64)});
    wide.layers.push_back({concat("act.", i), std::make_shared<Activation>("gelu")});
  }
  const Model gpt = small_gpt(8, 0.1, false);
  const struct {
    const Model& model;
    DataSplits data;
    std::string loss;
  } cases[] = {{wide, regression_data(64, 64, 64), "mean_squared_error"},
               {gpt, token_data(64, 8, 11), "sparse_categorical_cross_entropy"}};
  for (const auto& the : cases)
    for (const std::string name : {"gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zbv"})
      for (const Recompute recompute : {Recompute::never, Recompute::always}) {
        if (recompute == Recompute::always && name != "gpipe") continue;  // so little is kept that one message is much
        Config config = small_config(the.loss, 64, 8);
        config.train.eval_every = 0;
        config.train.steps = 2;
        const int each = find_generator(name)->virtual_stages.least;
        config = with_pipeline(config, 2 * each, name, each);
        config.pipeline.recompute = recompute;
        Trainer trainer(the.model, the.data, config);
        const Program& program = trainer.programs().get(Mode::train, 8);
        CostMeter meter(program);
        for (const StepResult& result : record_run(trainer).results) meter.add(result);
        const std::vector<double> simulated = simulate(program, meter.costs()).peak_bytes;
        for (std::size_t row = 0; row < simulated.size(); ++row) {
          INFO(the.model.name << ", " << name << ", recompute " << to_string(recompute) << ", worker " << row);
          CHECK(meter.in_flight_bytes()[row] == Approx(simulated[row]).epsilon(0.05));
        }
      }
}
