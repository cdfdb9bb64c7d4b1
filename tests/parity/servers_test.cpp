// SPDX-License-Identifier: Apache-2.0
//
// Training with servers of weights: with a most staleness of 0 the bits of one worker, whatever happens to workers;
// else the bound, whole reads, and training that gets somewhere.
#include <ATen/ATen.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <thread>

#include "tests/parity/delayed_channel.hpp"
#include "tests/parity/family_cases.hpp"
#include "tests/parity/optimizer_fixture.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

Config with_servers(Config config, int count, int servers, int max_staleness) {
  config.replicas.count = count;
  config.replicas.strategy = ReplicaStrategy::parameter_server;
  config.replicas.servers = servers;
  config.replicas.max_staleness = max_staleness;
  return config;
}

Config small(int groups = 4) {
  Config config = small_config("mean_squared_error", 9, 8);
  config.train.gradient_groups = groups;
  return config;
}

/// Hands its input on, and is told of each forward of a training step.
class Hook : public Layer {
 public:
  explicit Hook(std::function<void()> told) : told_(std::move(told)) {}
  std::string type() const override { return "hook"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override { return {{}, {inputs[0]}}; }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    if (context.training()) told_();
    return {inputs[0] * 1.0};
  }

 private:
  std::function<void()> told_;
};

Model with_hook(Model model, std::function<void()> told) {
  const std::size_t middle = model.layers.size() / 2;
  model.layers.insert(model.layers.begin() + static_cast<std::ptrdiff_t>(middle),
                      {"hook", std::make_shared<Hook>(std::move(told))});
  return model;
}

/// Of the update's number, whatever thread: weights that must all be equal, whoever reads them.
class Level : public Layer {
 public:
  std::string type() const override { return "level"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override {
    return {{{"a", {kElements}, Init::zeros(), ""}, {"b", {kElements}, Init::zeros(), ""}}, {inputs[0]}};
  }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    const at::Tensor a = context.leaf("a"), b = context.leaf("b");
    const at::Tensor all = at::cat({a.detach(), b.detach()});
    if (all.min().item<double>() != all.max().item<double>()) ++torn;
    ++reads;
    return {inputs[0] * 1.0 + (a.sum() + b.sum()) / kElements};
  }
  static constexpr std::int64_t kElements = 50'000;
  mutable std::atomic<int> torn = 0, reads = 0;
};

std::int64_t updates_of(const StepResult& result) {
  return std::accumulate(result.staleness.begin(), result.staleness.end(), std::int64_t{0});
}

std::vector<StepResult> training_steps(const RunRecord& run) {
  std::vector<StepResult> steps;
  for (const StepResult& result : run.results)
    if (result.mode == Mode::train) steps.push_back(result);
  return steps;
}

}  // namespace

TEST_CASE("servers with staleness 0 train to the bits of one worker: replicas, servers, clipping, late messages",
          "[parity]") {
  std::atomic<long> delays = 0;
  unsigned seed = 1;
  for (const bool clips : {true, false}) {
    Config config = small();
    if (!clips) config.train.clip_grad_norm = 0;
    const Model model = mlp_with_skip(0.25, true);
    const DataSplits data = regression_data(23, 6, 3);
    const RunRecord reference = reference_run(model, data, config);
    for (const int count : {1, 2, 3, 4})
      for (const int servers : {1, 2, 3}) {
        INFO(count << " replicas, " << servers << " servers, clips " << clips);
        const Config tested = with_servers(config, count, servers, 0);
        CHECK(difference(reference, model, data, tested) == "");
        Trainer late(model, data, tested);
        const RunRecord run = record_run(late, {.wrap_channel = delayed(seed++, delays)});
        CHECK(first_difference(reference, run, late.graph()).value_or("") == "");
      }
  }
  CHECK(delays > 1000);
}

TEST_CASE("servers with staleness 0 train sparse tables to the bits of one worker, for every optimizer", "[parity]") {
  const DataSplits data = clicks_data();
  for (const std::string optimizer :
       {"type: sgd", "type: sgd, momentum: 0.9", "type: adam", "type: adagrad", "type: rowwise_adagrad"})
    for (const bool clips : {true, false}) {
      Config config = with_optimizer(optimizer);
      config.train.micro_batches = config.train.gradient_groups = 4;
      if (!clips) config.train.clip_grad_norm = 0;
      const RunRecord reference = reference_run(clicks(), data, config);
      for (const int count : {1, 3}) {
        INFO(optimizer << ", " << count << " replicas, clips " << clips);
        CHECK(difference(reference, clicks(), data, with_servers(config, count, 1, 0)) == "");
      }
    }
}

TEST_CASE("servers with staleness 0 train ties, buffers and other precisions to the bits of one worker", "[parity]") {
  const auto check = [](const Model& model, const DataSplits& data, const Config& config) {
    const RunRecord reference = reference_run(model, data, config);
    for (const int count : {2, 3}) CHECK(difference(reference, model, data, with_servers(config, count, 2, 0)) == "");
  };
  Config config = small_config("sparse_categorical_cross_entropy", 9, 8);
  config.train.gradient_groups = 4;
  check(small_gpt(2, 0.1, true), token_data(23, 8, 11), config);
  config.train.precision = Precision::bf16;
  check(small_gpt(2, 0.1, true), token_data(23, 8, 11), config);
  config.train.precision = Precision::fp64;
  check(small_gpt(2, 0.1, false), token_data(23, 8, 11), config);
  config.train.precision = Precision::fp32;
  check(model_of("type: cnn, inputs: 3, classes: 4"), image_data(23, 3, 8, 4, false), config);
}

TEST_CASE("a part of a table on each server trains to the values of one worker", "[parity]") {
  const DataSplits data = clicks_data();
  const Model model =
      model_of("type: wide_deep, fields: [5000, 70000, 11, 500, 11, 11], embedding: 3, hidden: [8], sparse: true");
  for (const std::string optimizer : {"type: adam", "type: rowwise_adagrad"}) {
    Config config = with_optimizer(optimizer);
    config.train.clip_grad_norm = 0;  // else no table is divided
    config.train.micro_batches = config.train.gradient_groups = 4;
    const RunRecord reference = reference_run(model, data, config);
    Trainer trainer(model, data, with_servers(config, 2, 3, 0));
    const RunRecord run = record_run(trainer);
    std::map<int, std::map<std::int64_t, at::Tensor>> parts;
    bool divided = false;
    for (const FinalParameter& parameter : run.parameters) {
      divided = divided || parameter.part;
      parts[parameter.index][parameter.part ? parameter.part->begin : 0] = parameter.value;
    }
    CHECK(divided);
    for (const FinalParameter& parameter : reference.parameters) {
      std::vector<at::Tensor> pieces;
      for (const auto& [begin, piece] : parts.at(parameter.index)) pieces.push_back(piece);
      INFO(trainer.graph().parameters[static_cast<std::size_t>(parameter.index)].name);
      CHECK(at::cat(pieces).equal(parameter.value));
    }
    for (std::size_t i = 0; i < reference.results.size(); ++i)
      CHECK(run.results.at(i).loss() == reference.results[i].loss());
  }
}

TEST_CASE("the staleness of no update is above the bound, whoever is late", "[parity]") {
  const Model model = mlp_with_skip(0.25, true);
  const DataSplits data = regression_data(64, 6, 3);
  std::atomic<long> delays = 0;
  for (const int most : {1, 2, 5, 32})
    for (unsigned seed = 1; seed <= 3; ++seed) {
      Config config = small_config("mean_squared_error", 32, 8);
      config.train.steps = 20;
      config = with_servers(config, 4, 2, most);
      Trainer trainer(model, data, config);
      const RunRecord run = record_run(trainer, {.wrap_channel = delayed(seed, delays)});
      const std::vector<StepResult> steps = training_steps(run);
      REQUIRE(steps.size() == 20);
      std::int64_t stale = 0;
      for (const StepResult& step : steps) {
        INFO("at most " << most << ", step " << step.step);
        CHECK(updates_of(step) == 4 * 2);
        CHECK(static_cast<int>(step.staleness.size()) <= most + 1);
        stale += updates_of(step) - step.staleness.at(0);
      }
      CHECK(stale > 0);  // or nobody was late
      CHECK(steps.back().loss() < steps.front().loss());
    }
}

TEST_CASE("what is read of one server is never half of an update", "[parity]") {
  const auto level = std::make_shared<Level>();
  Model model{"level", {{"level", level}, {"fc", std::make_shared<Linear>(6, 3)}}};
  Config config = small_config("mean_squared_error", 32, 8);
  config.train.steps = 40;
  config.train.clip_grad_norm = 0;
  config.train.optimizer.type = OptimizerType::sgd;
  config.train.optimizer.weight_decay = 0;
  Trainer trainer(model, regression_data(64, 6, 3), with_servers(config, 4, 1, 8));
  const RunRecord run = record_run(trainer);
  CHECK(level->reads >= 40 * 8);
  CHECK(level->torn == 0);
  const auto a = std::find_if(run.parameters.begin(), run.parameters.end(), [](const FinalParameter& parameter) {
    return parameter.value.numel() == Level::kElements;
  });
  CHECK(a->value[0].item<double>() != 0);
}

TEST_CASE("a worker that fails is left out, and what it had to do is done by the others", "[parity]") {
  const DataSplits data = regression_data(27, 6, 3);  // no short batch, which has fewer shares
  for (const int most : {0, 3}) {
    const Config config = small();
    std::atomic<int> calls = 0;
    const auto fails_once = [&calls] {
      if (++calls == 13) throw std::runtime_error("no more");
    };
    const Model model = with_hook(mlp_with_skip(0.25, true), fails_once);
    const RunRecord reference = [&] {
      calls = 100;  // not here
      return reference_run(model, data, config);
    }();
    calls = 0;
    Trainer trainer(model, data, with_servers(config, 3, 2, most));
    const RunRecord run = record_run(trainer);
    CHECK(calls > 13);
    REQUIRE(run.results.size() == reference.results.size());
    if (most == 0) CHECK(first_difference(reference, run, trainer.graph()).value_or("") == "");
    for (const StepResult& step : training_steps(run))
      if (most > 0) CHECK(updates_of(step) == 3 * 2);
  }
}

TEST_CASE("when all workers have failed the job ends, and says what the first one said", "[parity]") {
  for (const int most : {0, 3}) {
    std::atomic<int> calls = 0;
    const Model model = with_hook(mlp_with_skip(0.25, true), [&calls] {
      if (++calls > 20) throw std::runtime_error("no more");
    });
    Trainer trainer(model, regression_data(23, 6, 3), with_servers(small(), 3, 2, most));
    CHECK_THROWS_WITH(trainer.fit(), Catch::Contains("no worker is left") &&
                                         Catch::Contains("layer 'hook' (hook) failed in forward") &&
                                         Catch::Contains("no more"));
  }
}

TEST_CASE("a slow worker computes fewer shares, and the others wait for it at the bound alone", "[parity]") {
  // The first thread that computes is slow until the others have computed so many micro-batches more.
  const auto shares_of_slow = [](int most) {
    std::mutex mutex;
    std::condition_variable changed;
    std::thread::id slow;
    int by_slow = 0, by_others = 0;
    bool waited_in_vain = false;
    const Model model = with_hook(mlp_with_skip(0.25, true), [&] {
      std::unique_lock lock(mutex);
      if (slow == std::thread::id()) slow = std::this_thread::get_id();
      if (slow != std::this_thread::get_id()) {
        ++by_others;
        changed.notify_all();
        return;
      }
      ++by_slow;
      const int wanted = by_others + 8;
      if (by_others < 200 &&
          !changed.wait_for(lock, std::chrono::milliseconds(500), [&] { return by_others >= wanted; }))
        waited_in_vain = true;
    });
    Config config = small_config("mean_squared_error", 32, 8);
    config.train.steps = 40;
    config.train.eval_every = 0;
    Trainer trainer(model, regression_data(64, 6, 3), with_servers(config, 4, 1, most));
    trainer.fit();
    CHECK(by_slow + by_others == 40 * 8);
    return std::pair(by_slow, waited_in_vain);
  };
  const auto [by_slow, in_vain] = shares_of_slow(64);
  CHECK(by_slow < 40 * 8 / 4);
  CHECK_FALSE(in_vain);
  CHECK(shares_of_slow(2).second);  // its share of two micro-batches lets the others make two updates
}

TEST_CASE("a checkpoint of servers goes on under every strategy, and theirs goes on with servers", "[parity]") {
  const DataSplits data = regression_data(23, 6, 3);
  const Model model = mlp_with_skip(0.25, true);
  Config config = small();
  config.checkpoint.every = "2";
  config.train.eval_every = 0;
  const RunRecord reference = reference_run(model, data, config);
  Config mirrored = config;
  mirrored.replicas.count = 2;
  for (const auto& [first, second] :
       {std::pair(with_servers(config, 4, 2, 0), mirrored), std::pair(mirrored, with_servers(config, 3, 1, 0)),
        std::pair(with_servers(config, 2, 3, 0), with_servers(config, 4, 2, 0))}) {
    const TemporaryFolder folder;
    Config leg = first;
    leg.train.stop_after = 2;
    RunRecord run = next_leg(model, data, leg, folder.path());
    append(run, next_leg(model, data, second, folder.path()));
    CHECK(first_difference(reference, run, Trainer(model, data, config).graph()).value_or("") == "");
  }
}

TEST_CASE("the optimizer counts updates, and goes on counting under another strategy", "[parity]") {
  const DataSplits data = regression_data(64, 6, 3);
  const Model model = mlp_with_skip(0.25, true);
  Config config = small_config("mean_squared_error", 32, 8);
  config.train.steps = 4;
  config.train.lr_schedule = {};
  config.checkpoint.every = "end";
  const TemporaryFolder folder;
  static_cast<void>(next_leg(model, data, with_servers(config, 4, 2, 3), folder.path()));
  const std::string checkpoint = checkpoint_path(folder.path(), 4);
  const TrainerState state = state_of(CheckpointStore(checkpoint));
  CHECK(state.step == 4);
  CHECK(state.position == 4 * 32);
  CHECK(state.optimizer_after == 4 - 16);  // 16 updates
  // AdamW by hand: the fifth step under one worker is the optimizer's seventeenth.
  config.train.steps = 5;
  Trainer trainer(model, data, config);
  trainer.resume(checkpoint);
  CHECK(trainer.start().optimizer_after == -12);
  const TemporaryFolder next;
  const JobOutcome outcome = trainer.fit({.checkpoints = next.path()});
  const std::string after = checkpoint_path(next.path(), 5);
  for (const FinalParameter& parameter : outcome.parameters) {
    const std::string& name = trainer.graph().parameters[static_cast<std::size_t>(parameter.index)].name;
    const at::Tensor m = saved(after, TensorKind::optimizer, name + ".exp_avg");
    const at::Tensor v = saved(after, TensorKind::optimizer, name + ".exp_avg_sq");
    const double lr = trainer.assembly().learning_rate(config.train.optimizer.lr, 5);
    const double decay = parameter.value.dim() > 1 ? config.train.optimizer.weight_decay : 0.0;
    const at::Tensor before = saved(checkpoint, TensorKind::weight, name) * (1 - lr * decay);
    const double c1 = 1 - std::pow(0.9, 17), c2 = 1 - std::pow(0.999, 17);
    const at::Tensor expected = before - lr / c1 * m / ((v / c2).sqrt() + 1e-8);
    CHECK(at::allclose(parameter.value, expected, 1e-5, 1e-6));
  }
}

TEST_CASE("what servers cannot serve is refused, with what to do", "[parity]") {
  using Catch::Contains;
  const auto refusal = [](const Model& model, const DataSplits& data, const Config& config) {
    try {
      Trainer(model, data, config);
      return std::string("none");
    } catch (const UserError& error) {
      return std::string(error.what());
    }
  };
  Config images = small_config("sparse_categorical_cross_entropy", 9, 8);
  CHECK_THAT(refusal(model_of("type: cnn, inputs: 3, classes: 4"), image_data(23, 3, 8, 4, false),
                     with_servers(images, 2, 1, 4)),
             Contains("replicas.max_staleness: got 4, but") && Contains("keeps statistics of whole mini-batches"));
  CHECK_THAT(refusal(model_of("type: lstm, vocab: 11, width: 8, carry: true"), token_data(23, 8, 11),
                     with_servers(images, 2, 1, 0)),
             Contains("carries state from batch to batch"));
}
