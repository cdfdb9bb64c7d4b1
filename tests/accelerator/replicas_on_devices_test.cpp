// SPDX-License-Identifier: Apache-2.0
//
// Replicas on devices: mirrored, sharded, with central storage, with servers.
#include <ATen/ATen.h>

#include <map>
#include <optional>

#include "tests/accelerator/fixture.hpp"
#include "tests/parity/family_cases.hpp"
#include "tests/parity/support.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("replicas on one device, on several and beside the host train to the bits of one worker there", "[parity]") {
  const Simulated simulated;
  const DataSplits tokens = token_data(13, 8, 11), images = image_data(13, 3, 8, 4, false);
  struct Job {
    Model model;
    const DataSplits& data;
  };
  for (const Job& job :
       {Job{small_gpt(2, 0.2, true), tokens}, Job{model_of("type: cnn, inputs: 3, classes: 4, norm: batch"), images}}) {
    Config config = small_config("sparse_categorical_cross_entropy", 8, 5);
    config.train.gradient_groups = 4;
    const RunRecord reference = run_on({sim()}, job.model, job.data, one_worker(config));
    for (const int count : {2, 3})
      for (const bool shards : {false, true})
        for (const std::vector<at::Device>& devices : {std::vector{sim(0)}, std::vector{sim(0), sim(1), sim(2)}}) {
          CAPTURE(job.model.name, count, shards, devices.size());
          Config tested = with_pipeline(config, /*stages=*/count - 1, "1f1b");
          tested.replicas.count = count;
          tested.replicas.shard_optimizer = shards;
          Accelerator::set_lag(shards == (devices.size() == 1) ? 3 : 0);
          CHECK(difference_on(devices, reference, job.model, job.data, tested) == "");
        }
  }
}

TEST_CASE("replicas wait no more for a device when there are more micro-batches, statistics included", "[parity]") {
  const Simulated simulated;
  const Model model = model_of("type: cnn, inputs: 3, classes: 4, norm: batch");
  const DataSplits images = image_data(40, 3, 8, 4, false);
  const auto waits = [&](int micro_batches) {
    Accelerator::reset();
    Config config = with_pipeline(small_config("sparse_categorical_cross_entropy", 16, micro_batches), 2, "1f1b");
    config.replicas.count = 2;
    config.train.gradient_groups = 2;
    config.train.eval_every = 0;
    trainer_on({sim(0), sim(1)}, model, images, config).fit();
    return Accelerator::counts().waits;
  };
  CHECK(waits(4) == waits(8));
}

TEST_CASE("with central storage devices compute, and main memory has what is trained", "[parity]") {
  const Simulated simulated;
  Accelerator::set_lag(GENERATE(0, 3));
  const DataSplits tokens = token_data(13, 8, 11);
  const Model model = small_gpt(2, 0.2, true);
  Config config = small_config("sparse_categorical_cross_entropy", 8, 5);
  config.train.gradient_groups = 4;
  config.train.clip_grad_norm = GENERATE(0.0, 0.5);
  const RunRecord mirrored = run_on({sim()}, model, tokens, one_worker(config));
  config.replicas.strategy = ReplicaStrategy::central_storage;
  std::optional<RunRecord> first;
  for (const int count : {2, 3, 4})
    for (const std::vector<at::Device>& devices : {std::vector{sim(0)}, std::vector{sim(0), sim(1), sim(2)}}) {
      CAPTURE(count, devices.size());
      Config tested = with_pipeline(config, /*stages=*/1 + count % 2, "1f1b");
      tested.replicas.count = count;
      if (!first) {
        first = run_on(devices, model, tokens, tested);
        continue;
      }
      CHECK(difference_on(devices, *first, model, tokens, tested) == "");
    }
  std::map<int, at::Tensor> weights;
  for (const FinalParameter& parameter : mirrored.parameters) weights[parameter.index] = parameter.value.cpu();
  for (const FinalParameter& parameter : first->parameters) {
    CHECK(parameter.value.device().is_cpu());
    // Norms and updates are the host's arithmetic: close to the device's.
    CHECK(at::allclose(parameter.value, weights.at(parameter.index), 1e-4, 1e-6));
  }
}

TEST_CASE("sparse tables of replicas on devices train to the bits of one worker there", "[parity]") {
  const Simulated simulated;
  Accelerator::set_lag(GENERATE(0, 3));
  const DataSplits data = clicks_data();
  Config config = small_config("mean_squared_error", 8, 5);
  config.train.gradient_groups = 4;
  config.train.clip_grad_norm = 0.5;
  const RunRecord reference = run_on({sim()}, clicks(), data, one_worker(config));
  for (const int count : {1, 2, 3})
    for (const bool shards : {false, true}) {
      CAPTURE(count, shards);
      Config tested = with_pipeline(config, /*stages=*/2, "1f1b");
      tested.replicas.count = count;
      tested.replicas.shard_optimizer = shards;
      CHECK(difference_on({sim(0), sim(1)}, reference, clicks(), data, tested) == "");
    }
}

TEST_CASE("servers have in main memory what workers on devices train, to the bits of central storage", "[parity]") {
  const Simulated simulated;
  Accelerator::set_lag(GENERATE(0, 3));
  struct Job {
    Model model;
    DataSplits data;
    std::string loss;
  };
  std::vector<Job> jobs = {{small_gpt(2, 0.2, true), token_data(13, 8, 11), "sparse_categorical_cross_entropy"},
                           {clicks(), clicks_data(), "mean_squared_error"}};
  for (const FamilyCase& the : family_cases())
    if (the.keys.find("numbers: ") != std::string::npos)
      jobs.push_back({model_of(the.keys + ", sparse: true"), the.data, "sparse_categorical_cross_entropy"});
  REQUIRE(jobs.size() == 3);
  for (const Job& job : jobs) {
    Config config = small_config(job.loss, 8, 5);
    config.train.gradient_groups = 4;
    config.train.clip_grad_norm = 0.5;
    config.replicas.count = 2;
    config.replicas.strategy = ReplicaStrategy::central_storage;
    const RunRecord central = run_on({sim()}, job.model, job.data, config);
    config.replicas.strategy = ReplicaStrategy::parameter_server;
    for (const int count : {1, 3})
      for (const std::vector<at::Device>& devices : {std::vector{sim(0)}, std::vector{sim(0), sim(1), sim(2)}}) {
        CAPTURE(job.model.name, count, devices.size());
        Config tested = config;
        tested.replicas.count = count;
        tested.replicas.max_staleness = 0;
        tested.replicas.servers = job.model.name == "wide_deep" ? 1 : 2;  // hashes are those of whole tables
        CHECK(difference_on(devices, central, job.model, job.data, tested) == "");
      }
    config.replicas.max_staleness = 4;
    config.train.steps = 3;
    CHECK(run_on({sim(0), sim(1)}, job.model, job.data, config).results.size() >= 3);
  }
}
