// SPDX-License-Identifier: Apache-2.0
//
// Replicas on devices: mirrored, sharded, and with central storage.
#include <ATen/ATen.h>

#include <map>
#include <optional>

#include "tests/accelerator/fixture.hpp"
#include "tests/parity/support.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("replicas on one device, on several and beside the host train to the bits of one worker there", "[parity]") {
  const Simulated simulated;
  Accelerator::set_lag(GENERATE(0, 3));
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
          CHECK(difference_on(devices, reference, job.model, job.data, tested) == "");
        }
  }
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
