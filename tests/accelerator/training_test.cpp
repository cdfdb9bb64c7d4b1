// SPDX-License-Identifier: Apache-2.0
//
// Training on devices: the same bits for every cut and schedule, and nothing in the wrong order.
#include <ATen/ATen.h>

#include <cmath>

#include "runtime/checkpoint/store.hpp"
#include "runtime/config/section.hpp"
#include "runtime/engine/product_rate.hpp"
#include "runtime/engine/tensor_math.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/training/placement.hpp"
#include "tests/accelerator/fixture.hpp"
#include "tests/parity/support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// Hands on what `change` leaves of each message.
class Tampering : public Channel {
 public:
  Tampering(std::unique_ptr<Channel> inner, std::function<void(Message&)> change)
      : inner_(std::move(inner)), change_(std::move(change)) {}
  void post() override { inner_->post(); }
  Message receive(const WaitLimits& limits) override { return inner_->receive(limits); }
  bool arrived() override { return inner_->arrived(); }
  void send(Message message, const WaitLimits& limits) override {
    change_(message);
    inner_->send(std::move(message), limits);
  }
  void finish(const WaitLimits& limits) override { inner_->finish(limits); }

  bool is_local() const override { return inner_->is_local(); }
  bool wants_host_memory() const override { return inner_->wants_host_memory(); }

 private:
  std::unique_ptr<Channel> inner_;
  std::function<void(Message&)> change_;
};

std::vector<std::string> findings_with(const std::function<void(Message&)>& change) {
  RunOptions options;
  options.wrap_channel = [&](std::unique_ptr<Channel> channel, int) {
    return std::make_unique<Tampering>(std::move(channel), change);
  };
  const Config config = with_pipeline(small_config("mean_squared_error", 8, 5), 3, "1f1b");
  run_on({sim()}, mlp_with_skip(0.25, true), regression_data(21, 6, 3), config, options);
  const std::vector<std::string> findings = Accelerator::findings();
  Accelerator::reset();
  return findings;
}

}  // namespace

TEST_CASE("workers on one device and on several train to the bits of one worker there", "[parity]") {
  const Simulated simulated;
  const DataSplits data = regression_data(21, 6, 3), tokens = token_data(13, 8, 11);
  const DataSplits images = image_data(13, 3, 8, 4, false);
  struct Job {
    Model model;
    const DataSplits& data;
    std::string loss;
    Precision precision = Precision::fp32;
    Recompute recompute = Recompute::never;
    DropoutKernel dropout = DropoutKernel::torch;
  };
  const std::vector<Job> jobs = {
      {mlp_with_skip(0.25, true), data, "mean_squared_error"},
      {mlp_with_skip(0.25, true), data, "mean_squared_error", Precision::fp32, Recompute::always},
      {small_gpt(2, 0.2, true), tokens, "sparse_categorical_cross_entropy"},
      {small_gpt(2, 0.2, true), tokens, "sparse_categorical_cross_entropy", Precision::bf16, Recompute::always,
       DropoutKernel::philox},
      {model_of("type: cnn, inputs: 3, classes: 4, norm: batch"), images, "sparse_categorical_cross_entropy"}};
  for (const Job& job : jobs) {
    Config config = small_config(job.loss, 8, 4);
    config.train.precision = job.precision;
    config.kernels.dropout = job.dropout;
    const RunRecord reference = run_on({sim()}, job.model, job.data, one_worker(config));
    config.pipeline.recompute = job.recompute;
    int lag = 0;  // both for every schedule, on one device or on several
    for (const ScheduleGenerator& schedule : schedule_generators()) {
      lag = 3 - lag;
      for (const std::vector<at::Device>& devices : {std::vector{sim(0)}, std::vector{sim(0), sim(1), sim(2)}}) {
        const int stages = schedule.virtual_stages.allows(1) ? 3 : 4, virtual_stages = stages == 3 ? 1 : 2;
        CAPTURE(job.model.name, job.precision, job.recompute, job.dropout, schedule.name, devices.size());
        Config tested = with_pipeline(config, stages, schedule.name, virtual_stages);
        tested.pipeline.recompute = job.recompute;
        Accelerator::set_lag(devices.size() == 1 ? lag : 3 - lag);
        CHECK(difference_on(devices, reference, job.model, job.data, tested) == "");
      }
    }
  }
}

TEST_CASE("a worker measures on its device how fast that multiplies, before anything that counts", "[parity]") {
  const Simulated simulated;
  const DataSplits data = regression_data(21, 6, 3);
  const Model model = mlp_with_skip(0.25, true);
  const Config config = with_pipeline(small_config("mean_squared_error", 8, 5), 3, "1f1b");
  const auto run = [&](bool measures) {
    return run_on({sim(0), sim(1)}, model, data, config, {.measure_products = measures});
  };
  const RunRecord plain = run(false);
  Accelerator::set_lag(2);
  const RunRecord measured = run(true);
  CHECK(first_difference(plain, measured, Trainer(model, data, one_worker(config)).graph()).value_or("") == "");
  for (std::size_t i = 0; i < measured.results.size(); ++i) {
    CHECK(measured.results[i].product_rate() > 1e6);
    CHECK(measured.results[i].operations() == plain.results[i].operations());
  }
  const DeviceStream stream(sim(0));
  const DeviceStream::Scope scope(stream);
  MemoryPool pool(0, sim(0));
  const MemoryPool::Scope memory(pool);
  const std::int64_t before = Accelerator::counts().kernels;
  CHECK(product_rate(stream, at::kBFloat16) > 1e6);
  CHECK(Accelerator::counts().kernels > before);  // as many as the machine has time for
  CHECK(pool.bytes() == 0);
  CHECK(pool.peak_bytes() < 10'000);
}

TEST_CASE("a device without a number is the first one, as its tensors say", "[parity]") {
  const Simulated simulated;
  CHECK(device_of("sim", {}) == sim(0));
  CHECK(device_of("sim:1", {}) == sim(1));
}

TEST_CASE("each worker computes on a stream of its own", "[parity]") {
  const Simulated simulated;
  const Config config = with_pipeline(small_config("mean_squared_error", 8, 5), 3, "1f1b");
  run_on({sim()}, mlp_with_skip(0.25, true), regression_data(21, 6, 3), config);
  CHECK(Accelerator::counts().streams >= 3);
  CHECK(at::globalContext().deterministicAlgorithms());  // as every run on a device is by default
}

TEST_CASE("a message without its event, and one whose memory is not kept, are found", "[parity]") {
  const Simulated simulated;
  Accelerator::set_lag(2);
  CHECK(findings_with([](Message&) {}).empty());
  const std::vector<std::string> races = findings_with([](Message& message) { message.loan.ready = {}; });
  REQUIRE(!races.empty());
  CHECK_THAT(races.front(), Catch::StartsWith("data race: "));
  const std::vector<std::string> early = findings_with([](Message& message) { message.loan.lender = nullptr; });
  REQUIRE(!early.empty());
  CHECK_THAT(early.front(), Catch::StartsWith("freed early: "));
}

TEST_CASE("Philox drops the same elements on a device and on the CPU", "[parity]") {
  const Simulated simulated;
  const DataSplits tokens = token_data(13, 8, 11);
  Config config = with_pipeline(small_config("sparse_categorical_cross_entropy", 8, 4), 3, "1f1b");
  const auto first_loss = [&](const std::vector<at::Device>& devices, DropoutKernel kernel) {
    config.kernels.dropout = kernel;
    return run_on(devices, small_gpt(2, 0.5, true), tokens, config).results.front().loss();
  };
  const double expected = first_loss({at::kCPU}, DropoutKernel::philox);
  CHECK(std::abs(first_loss({sim(), at::kCPU, sim(1)}, DropoutKernel::philox) - expected) < 1e-5);
  CHECK(std::abs(first_loss({at::kCPU}, DropoutKernel::torch) - expected) > 1e-3);  // would be seen
}

TEST_CASE("devices of two kinds train together, and a checkpoint goes from one kind to the other and back",
          "[parity]") {
  const Simulated simulated;
  Accelerator::set_lag(2);
  const Model model = small_gpt(2, 0.0, true);
  const DataSplits data = token_data(13, 8, 11);
  Config config = with_pipeline(small_config("sparse_categorical_cross_entropy", 8, 5), 3, "1f1b");
  const auto losses = [](const RunRecord& run) {
    std::vector<double> all;
    for (const StepResult& result : run.results) all.push_back(result.loss());
    return all;
  };
  const std::vector<double> expected = losses(reference_run(model, data, config));
  const auto close = [](double a, double b) { return std::abs(a - b) < 1e-4 * std::abs(b); };
  const std::vector<std::vector<at::Device>> mixtures = {
      {sim(), at::kCPU, at::kCPU}, {at::kCPU, sim(), at::kCPU}, {sim(1), at::kCPU, sim(0)}};
  for (const std::vector<at::Device>& devices : mixtures) {
    CAPTURE(devices);
    const std::vector<double> got = losses(run_on(devices, model, data, config));
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(close(got[i], expected[i]));
  }

  config.checkpoint.every = "1";
  config.train.stop_after = 2;
  for (const Background background : {Background::always, Background::never}) {
    const TemporaryFolder folder;
    config.checkpoint.background = background;
    const std::vector<std::vector<at::Device>> legs = {{at::kCPU}, {sim()}, {at::kCPU}};
    std::vector<double> got;
    for (const std::vector<at::Device>& devices : legs) {
      const std::vector<CheckpointPlace> before = list_checkpoints(folder.path());
      const RunRecord leg = run_on(devices, model, data, config, {.checkpoints = folder.path()},
                                   before.empty() ? "" : before.back().path);
      for (const double loss : losses(leg)) got.push_back(loss);
    }
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(close(got[i], expected[i]));
  }
}

TEST_CASE("a checkpoint of another kind of device is gone on from with a warning that names both", "[parity]") {
  const Simulated simulated;
  const TemporaryFolder folder;
  const Model model = mlp_with_skip(0.0, true);
  const DataSplits data = regression_data(21, 6, 3);
  Config config = with_pipeline(small_config("mean_squared_error", 8, 5), 3, "1f1b");
  config.checkpoint.every = "1";
  config.train.stop_after = 2;
  run_on({at::kCPU}, model, data, config, {.checkpoints = folder.path()});
  const std::string checkpoint = list_checkpoints(folder.path()).back().path;
  const auto difference_from = [&](const std::vector<at::Device>& devices) {
    Trainer trainer = trainer_on(devices, model, data, config);
    trainer.resume(checkpoint);
    CHECK_THAT(trainer.agreement(), !Catch::Contains("card"));  // of which each rank may have another
    return environment_difference(trainer.resumed_state(), trainer.start().environment);
  };
  CHECK(difference_from({at::kCPU}).empty());
  CHECK(difference_from({sim()}) == "devices sim instead of cpu");
  CHECK(difference_from({sim(1), at::kCPU}) == "devices cpu + sim instead of cpu");
}

TEST_CASE("a device sums the squares of a norm itself, block by block, and nobody waits", "[parity]") {
  const Simulated simulated;
  const auto block = static_cast<std::int64_t>(kNormBlock);
  std::vector<at::Tensor> here, there;
  for (const std::int64_t size : {std::int64_t{5}, block, 3 * block + 7, 130 * block, std::int64_t{0}}) {
    here.push_back(at::randn({size}));
    there.push_back(here.back().to(sim()));
  }
  there.push_back(here.front().to(at::kDouble).to(sim()));
  here.push_back(here.front().to(at::kDouble));
  Accelerator::reset();
  const at::Tensor got = squared_norms(there, sim()), expected = squared_norms(here, at::kCPU);
  const auto half = [](const at::Tensor& squares) {
    const std::int64_t count = squares.numel() / 2;
    constexpr int whole = SquaredNorms::kWhole;
    return std::vector<SquaredNorms>{{{5, 0, 3}, {whole, whole, whole}, squares.narrow(0, 0, 3)},
                                     {{1, 4, 2}, {whole, whole, whole}, squares.narrow(0, 3, count)}};
  };
  const at::Tensor norm = total_norm(half(got), sim()), expected_norm = total_norm(half(expected), at::kCPU);
  CHECK(Accelerator::counts().waits == 0);
  CHECK(Accelerator::counts().to_host_bytes == 0);
  CHECK(at::allclose(got.cpu(), expected, 1e-12, 0));
  CHECK(at::allclose(norm.cpu(), expected_norm, 1e-12, 0));
  CHECK(squared_norms({}, sim()).numel() == 0);
}

TEST_CASE("who has some blocks of a tensor on a device has a part of the whole, to the bit", "[parity]") {
  const Simulated simulated;
  const auto block = static_cast<std::int64_t>(kNormBlock);
  std::vector<at::Tensor> tensors;
  for (int trial = 0; trial < 20; ++trial) tensors.push_back(at::randn({2 * block + 7}).to(sim()));
  Accelerator::reset();
  std::vector<std::pair<at::Tensor, at::Tensor>> norms;
  for (const at::Tensor& tensor : tensors) {
    const at::Tensor whole = squared_norms({tensor}, sim());
    const at::Tensor first = squared_norms({tensor.narrow(0, 0, block)}, sim());
    const at::Tensor others = squared_norms({tensor.narrow(0, block, block), tensor.narrow(0, 2 * block, 7)}, sim());
    norms.emplace_back(total_norm({{{0, 0}, {1, 2}, others}, {{0}, {0}, first}}, sim()),
                       total_norm({{{0}, {SquaredNorms::kWhole}, whole}}, sim()));
  }
  CHECK(Accelerator::counts().waits == 0);
  for (const auto& [in_parts, at_once] : norms) CHECK(at::equal(in_parts.cpu(), at_once.cpu()));
}

TEST_CASE("nobody waits for a device: neither per layer and micro-batch nor per step", "[parity]") {
  const Simulated simulated;
  const DataSplits data = regression_data(40, 6, 3), tokens = token_data(40, 8, 11);
  const DataSplits images = image_data(40, 3, 8, 4, false);
  struct Job {
    Model model;
    const DataSplits& data;
    PluginKind loss;
  };
  const PluginKind of_classes("sparse_categorical_cross_entropy");
  const PluginKind weighted(of_classes.name, load_config_text("class_weights: [1, 2, 0.5, 1]", "options"));
  const std::vector<Job> jobs = {{mlp_with_skip(0.25, true), data, "mean_squared_error"},
                                 {small_gpt(2, 0.0, true), tokens, of_classes},
                                 {model_of("type: cnn, inputs: 3, classes: 4, norm: batch"), images, weighted}};
  for (const Job& job : jobs)
    for (const double clip : {0.0, 0.5})
      for (const bool post_validation : {false, true}) {
        std::int64_t layers = 0;
        const auto counts = [&](int micro_batches, int steps) {
          Accelerator::reset();
          Config config = with_pipeline(small_config("", 8, micro_batches), 3, "1f1b");
          config.train.loss = job.loss;
          config.train.clip_grad_norm = clip;
          config.train.post_validation = post_validation && clip > 0;
          config.train.steps = steps;
          config.train.eval_every = 0;
          Trainer trainer = trainer_on({sim(0), sim(1)}, job.model, job.data, config);
          layers = trainer.graph().layer_count();
          trainer.fit();
          return Accelerator::counts();
        };
        CAPTURE(job.model.name, clip, post_validation);
        const AcceleratorCounts few = counts(4, 3), many = counts(8, 3), longer = counts(4, 5);
        CHECK(few.kernels < many.kernels);
        CHECK(many.waits == few.waits);
        // Least and most of every output and input gradient (of a sum, two) and the loss, as doubles.
        CHECK(many.to_host_bytes - few.to_host_bytes <= std::int64_t{3 * (8 - 4) * 8} * (6 * layers + 1));
        CHECK(longer.waits - few.waits == (clip > 0 && post_validation ? 2 * 3 : 0));  // amend, on each worker
      }
}

TEST_CASE("no optimizer waits for a device, and each does there what it does on the host", "[parity]") {
  const Simulated simulated;
  const DataSplits data = regression_data(40, 6, 3);
  const Model model = mlp_with_skip(0.0, true);
  const Precision precision = GENERATE(Precision::fp32, Precision::fp64);
  for (int i = 0; i < kCount<OptimizerType>; ++i) {
    const auto type = static_cast<OptimizerType>(i);
    CAPTURE(to_string(type), to_string(precision));
    Config config = one_worker(small_config("mean_squared_error", 8, 2));
    config.train.precision = precision;
    config.train.optimizer.type = type;
    config.train.optimizer.momentum = type == OptimizerType::sgd ? 0.9 : 0;
    config.train.eval_every = 0;
    const auto waits = [&](int steps) {
      Accelerator::reset();
      config.train.steps = steps;
      trainer_on({sim()}, model, data, config).fit();
      return Accelerator::counts().waits;
    };
    CHECK(waits(3) == waits(6));
    const double there = run_on({sim()}, model, data, config).results.back().loss();
    const double here = run_on({at::kCPU}, model, data, config).results.back().loss();
    CHECK(std::abs(there - here) < 1e-5 * here);
  }
}

TEST_CASE("a value that is not finite on a device is named by layer and micro-batch", "[parity]") {
  const Simulated simulated;
  DataSplits data = regression_data(21, 6, 3);
  Config config = with_pipeline(small_config("mean_squared_error", 8, 5), 3, "1f1b");
  config.train.optimizer.lr = 1e30;
  config.train.clip_grad_norm = 0;
  config.train.lr_schedule = {};
  const Model model = mlp_with_skip(0.0, true);
  const auto first_of_run = [&](const RunRecord& run) {
    for (const StepResult& result : run.results)
      if (result.non_finite.found())
        return concat(result.step, " ", result.non_finite.layer, " ", result.non_finite.micro_batch, " ",
                      result.non_finite.what);
    return std::string("none");
  };
  const std::string expected = first_of_run(reference_run(model, data, config));
  CHECK(expected != "none");
  CHECK(first_of_run(run_on({sim()}, model, data, config)) == expected);
}

TEST_CASE("bytes of a device are counted by worker and kind, as those of the host are", "[parity]") {
  const Simulated simulated;
  const DataSplits data = token_data(13, 8, 11);
  const Model model = small_gpt(2, 0.0, true);
  const Config config = with_pipeline(small_config("sparse_categorical_cross_entropy", 8, 4), 3, "1f1b");
  // In flight is beyond what a step begins with, perhaps something that a neighbour has not let go of yet: of the
  // steps the most counts, as for CostMeter.
  const auto peaks = [&](const std::vector<at::Device>& devices) {
    const RunRecord run = run_on(devices, model, data, config);
    std::vector<WorkerReport> workers = run.results.back().workers;
    for (const StepResult& result : run.results)
      for (std::size_t worker = 0; worker < workers.size() && worker < result.workers.size(); ++worker)
        workers[worker].in_flight_bytes =
            std::max(workers[worker].in_flight_bytes, result.workers[worker].in_flight_bytes);
    return workers;
  };
  const std::vector<WorkerReport> there = peaks({sim()}), here = peaks({at::kCPU});
  const auto bytes = [](const WorkerReport& worker, MemoryKind kind) {
    return worker.peak_by_kind[static_cast<std::size_t>(kind)];
  };
  REQUIRE(there.size() == 3);
  for (std::size_t worker = 0; worker < 3; ++worker) {
    for (const MemoryKind kind : {MemoryKind::parameters, MemoryKind::optimizer}) {
      CAPTURE(worker, to_string(kind));
      CHECK(bytes(there[worker], kind) == bytes(here[worker], kind));
    }
    // The most of such a small model is there when the norm is taken, which has blocks of its own.
    CHECK(bytes(there[worker], MemoryKind::gradients) >= bytes(here[worker], MemoryKind::gradients));
    CAPTURE(worker, bytes(there[worker], MemoryKind::activations), bytes(here[worker], MemoryKind::activations));
    CHECK(bytes(there[worker], MemoryKind::activations) > 0);
    CHECK(there[worker].in_flight_bytes > 0);
    const std::int64_t kept = there[worker].stages.front().activation_bytes;
    const std::int64_t of_host = here[worker].stages.front().activation_bytes;
    CHECK(kept >= of_host);
    CHECK(kept <= of_host + 512);  // and the numbers that the host wants to know
  }
}

TEST_CASE("a device's memory limit, and its end, are named by worker, stage and layer", "[parity]") {
  const Simulated simulated;
  Config config = with_pipeline(small_config("mean_squared_error", 8, 4), 3, "1f1b");
  config.workers.memory_limit = 3000;
  const auto run = [&] { run_on({sim()}, mlp_with_skip(0.25, true), regression_data(21, 6, 3), config); };
  CHECK_THROWS_WITH(run(), Catch::StartsWith("worker ") &&
                               Catch::Contains("over the memory limit of this worker: asked "
                                               "for ") &&
                               Catch::Contains("of workers.memory_limit: 2.93 KiB"));
  config.workers.memory_limit = 0;
  Accelerator::set_device_bytes(9000);
  CHECK_THROWS_WITH(run(), Catch::StartsWith("worker ") && Catch::Contains("out of memory of the device: sim:0") &&
                               Catch::Contains("this worker's tensors hold ") && Catch::Contains("(stage "));
  Accelerator::set_device_bytes(0);
}
