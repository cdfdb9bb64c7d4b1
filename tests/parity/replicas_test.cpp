// SPDX-License-Identifier: Apache-2.0
//
// Whatever the number of replicas, their strategy and memory: at the same gradient groups the bits are those of one
// worker.
#include <atomic>

#include "runtime/schedule/generators.hpp"
#include "tests/parity/delayed_channel.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

constexpr std::int64_t kBatch = 9;  // 8 micro-batches are uneven
constexpr std::int64_t kSamples = 23;

struct Case {
  std::string name;
  Model model;
  DataSplits data;
  Config config;
};

Config with_replicas(Config config, int count) {
  config.replicas.count = count;
  return config;
}

void expect_same_bits(const Case& the, const std::vector<std::string>& schedules = {"1f1b"},
                      const std::vector<int>& counts = {1, 2, 3, 4}) {
  const RunRecord reference = reference_run(the.model, the.data, the.config);
  REQUIRE(reference.results.size() > 5);
  for (const std::string& schedule : schedules)
    for (const int count : counts)
      for (const int workers : {1, 2}) {
        const int virtual_stages = find_generator(schedule)->virtual_stages.least;
        INFO(the.name << ", " << schedule << ", " << count << " replicas of " << workers << " workers");
        const Config config =
            with_pipeline(with_replicas(the.config, count), workers * virtual_stages, schedule, virtual_stages);
        CHECK(difference(reference, the.model, the.data, config) == "");
      }
}

Config config_of(const std::string& loss, int groups) {
  Config config = small_config(loss, kBatch, 8);
  config.train.gradient_groups = groups;
  return config;
}

constexpr const char* kTokens = "sparse_categorical_cross_entropy";

}  // namespace

TEST_CASE("replicas of an MLP train to the bits of one worker", "[parity]") {
  const DataSplits data = regression_data(kSamples, 6, 3);
  for (const int groups : {4, 5, 8})
    expect_same_bits(
        {concat("mlp, ", groups, " groups"), mlp_with_skip(0.25, true), data, config_of("mean_squared_error", groups)});
}

TEST_CASE("replicas of a GPT with a tie and ignored labels train to the bits of one worker", "[parity]") {
  const DataSplits data = token_data(kSamples, 8, 11);
  expect_same_bits({"gpt", small_gpt(3, 0.2, true), data, config_of(kTokens, 4)}, {"1f1b", "gpipe", "zb_h1", "zbv"});
}

TEST_CASE("replicas with bf16, recompute and post-validation train to the bits of one worker", "[parity]") {
  const DataSplits data = token_data(kSamples, 8, 11);
  Config config = config_of(kTokens, 4);
  config.train.precision = Precision::bf16;
  config.train.post_validation = true;
  config.pipeline.recompute = Recompute::always;
  expect_same_bits({"gpt in bf16", small_gpt(2, 0.1, true), data, config}, {"1f1b"}, {2, 3});
}

TEST_CASE("replicas with batch norm train to the bits of one worker, running statistics included", "[parity]") {
  const DataSplits data = image_data(kSamples, 3, 8, 4, false);
  const Model cnn = model_of("type: cnn, inputs: 3, classes: 4, depth: 2");
  Config config = small_config(kTokens, 9, 4);
  config.train.gradient_groups = 4;
  expect_same_bits({"cnn", cnn, data, config});
}

TEST_CASE("replicas of a pipeline whose schedule is measured first train to the bits of one worker", "[parity]") {
  const DataSplits data = regression_data(kSamples, 6, 3);
  const Model model = mlp_with_skip(0.25, true);
  const Config config = config_of("mean_squared_error", 4);
  const RunRecord reference = reference_run(model, data, config);
  CHECK(difference(reference, model, data, with_pipeline(with_replicas(config, 2), 4, "auto", 2)) == "");
}

TEST_CASE("messages of replicas that are delayed at random change no bit", "[parity]") {
  const DataSplits data = token_data(kSamples, 8, 11);
  const Model model = small_gpt(3, 0.2, true);
  const Config config = config_of(kTokens, 4);
  const RunRecord reference = reference_run(model, data, config);
  for (const unsigned seed : {1U, 2U, 3U})
    for (const ReplicaStrategy strategy : {ReplicaStrategy::mirrored, ReplicaStrategy::central_storage}) {
      Config tested = with_pipeline(with_replicas(config, 3), 2, "zb_h1");
      tested.replicas.strategy = strategy;
      tested.train.post_validation = seed == 2;
      Trainer trainer(model, data, tested);
      std::atomic<long> delays{0};
      RunOptions options;
      options.wrap_channel = delayed(seed, delays);
      INFO("seed " << seed << ", " << name_of(strategy));
      CHECK(first_difference(reference, record_run(trainer, options), trainer.graph()).value_or("") == "");
      CHECK(delays > 20);
    }
}

TEST_CASE("a run goes on with another number of replicas, another strategy and other schedules to the same bits",
          "[parity]") {
  struct Leg {
    int replicas, workers;
    const char* schedule;
    int groups;  // 0: the checkpoint's
    bool shards;
  };
  const DataSplits data = token_data(kSamples, 8, 11);
  const Model model = small_gpt(3, 0.2, true);
  const Config config = config_of(kTokens, 4);
  const RunRecord unbroken = reference_run(model, data, config);
  const TemporaryFolder folder;
  RunRecord run;
  for (const Leg& leg : {Leg{1, 3, "1f1b", 4, false}, Leg{4, 1, "gpipe", 0, false}, Leg{2, 2, "zb_h1", 0, true},
                         Leg{1, 2, "1f1b", 0, false}, Leg{3, 2, "1f1b", 4, false}}) {
    Config of_leg = with_pipeline(with_replicas(config, leg.replicas), leg.workers, leg.schedule);
    of_leg.replicas.shard_optimizer = leg.shards;
    of_leg.train.gradient_groups = leg.groups;
    of_leg.train.stop_after = 1;
    append(run, next_leg(model, data, of_leg, folder.path()));
  }
  const Trainer trainer(model, data, one_worker(config));
  CHECK(first_difference(unbroken, run, trainer.graph()).value_or("") == "");
}

TEST_CASE("in one process weights and optimizer state are there once, gradients once per replica", "[parity]") {
  Model model{"mlp", {}};
  for (const char* name : {"fc.0", "fc.1", "fc.2"}) model.layers.push_back({name, std::make_shared<Linear>(512, 512)});
  const DataSplits data = regression_data(kSamples, 512, 512);
  const double parameters = 3 * (512 * 512 + 512);
  for (const int count : {1, 2, 4}) {
    Config config = with_pipeline(with_replicas(config_of("mean_squared_error", count), count), 1, "1f1b");
    config.train.clip_grad_norm = 0;
    config.train.eval_every = 0;
    Trainer trainer(model, data, config);
    const RunRecord run = record_run(trainer);
    std::map<MemoryKind, double> bytes;
    for (const WorkerReport& worker : run.results.back().workers)
      for (const MemoryKind kind : {MemoryKind::parameters, MemoryKind::gradients, MemoryKind::optimizer})
        bytes[kind] += static_cast<double>(worker.peak_by_kind[static_cast<std::size_t>(kind)]);
    INFO(count << " replicas");
    CHECK(bytes[MemoryKind::parameters] == Approx(4 * parameters).epsilon(0.05));
    CHECK(bytes[MemoryKind::optimizer] == Approx(8 * parameters).epsilon(0.05));
    CHECK(bytes[MemoryKind::gradients] == Approx(4 * parameters * count).epsilon(0.05));
  }
}

TEST_CASE("more replicas than the checkpoint has groups are refused, unless that is meant", "[parity]") {
  const DataSplits data = regression_data(kSamples, 6, 3);
  const Model model = mlp_with_skip(0.25, true);
  Config config = config_of("mean_squared_error", 2);
  config.train.stop_after = 1;
  const TemporaryFolder folder;
  next_leg(model, data, config, folder.path());
  const std::string checkpoint = list_checkpoints(folder.path()).back().path;
  config.replicas.count = 4;
  config.train.gradient_groups = 0;
  Trainer more(model, data, config);
  CHECK_THROWS_WITH(
      more.resume(checkpoint),
      Catch::Contains("replicas.count: got 4, expected at most 2, the gradient groups of the checkpoint") &&
          Catch::Contains("--change train.gradient_groups=4"));
  config.train.gradient_groups = 4;
  Trainer other(model, data, config);
  CHECK_THROWS_WITH(other.resume(checkpoint), Catch::Contains("train.gradient_groups: got 4, expected 2"));
  Trainer meant(model, data, config);
  CHECK_NOTHROW(meant.resume(checkpoint, {.changes = {"train.gradient_groups"}}));
  // Groups that are left open are the checkpoint's, whatever the number of replicas.
  config.replicas.count = 1;
  config.train.gradient_groups = 0;
  Trainer open(model, data, config);
  open.resume(checkpoint);
  CHECK(open.config().gradient_groups() == 2);
}

TEST_CASE("replicas update parts of large parameters to the bits of one worker", "[parity]") {
  // Blocks of 65,536 elements: a matrix of 2.3, a table of 1.1; every optimizer, an average and groups.
  const DataSplits data = regression_data(kSamples, 6, 3);
  Model model{"mlp", {}};
  for (const auto& [name, in, out] :
       {std::tuple("fc.0", 6, 390), std::tuple("fc.1", 390, 390), std::tuple("out", 390, 3)})
    model.layers.push_back({name, std::make_shared<Linear>(in, out)});
  using enum OptimizerType;
  for (const OptimizerType type : {sgd, adam, adamw, rmsprop, adagrad, adafactor}) {
    Config config = config_of("mean_squared_error", 4);
    config.train.optimizer.type = type;
    if (type == sgd || type == rmsprop) config.train.optimizer.momentum = 0.9;
    config.train.optimizer.groups = {{{"fc.1.weight"}, 0.5, 0.0}};
    config.train.ema = {true, 0.9};
    config.train.post_validation = type == adam;
    expect_same_bits({name_of(type), model, data, config}, {"gpipe"}, {2, 3});
  }
}
