// SPDX-License-Identifier: Apache-2.0
//
// Sparse tables: gradients and updates of the rows that a mini-batch uses. They are the dense ones where a row without
// a gradient stays as it is, and their own definitions elsewhere.
#include <ATen/ATen.h>

#include "runtime/training/run_record.hpp"
#include "tests/parity/family_cases.hpp"
#include "tests/parity/optimizer_fixture.hpp"
#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

Config with(const std::string& optimizer) {
  Config config = with_optimizer(optimizer);
  config.train.clip_grad_norm = 0;  // whose sum of squares is added up in another order
  return config;
}

std::vector<ParameterHash> values_of(const RunRecord& run) {
  std::vector<ParameterHash> values;
  for (const ParameterHash& each : run.hashes)
    if (each.what == Hashed::value) values.push_back(each);
  return values;
}

bool same_values(const RunRecord& a, const RunRecord& b) {
  const std::vector<ParameterHash> ours = values_of(a), theirs = values_of(b);
  REQUIRE(ours.size() == theirs.size());
  REQUIRE(!ours.empty());
  for (std::size_t i = 0; i < ours.size(); ++i)
    if (ours[i].step != theirs[i].step || ours[i].parameter != theirs[i].parameter || ours[i].hash != theirs[i].hash)
      return false;
  return true;
}

std::vector<std::string> kinds() {
  return {"type: sgd",
          "type: sgd, momentum: 0.9, nesterov: true",
          "type: adam",
          "type: adamw, weight_decay: 0.1",
          "type: rmsprop, centered: true",
          "type: adagrad, lr_decay: 0.1, weight_decay: 0.1",
          "type: rowwise_adagrad, initial_accumulator_value: 0.1"};
}

}  // namespace

TEST_CASE("sparse rows are those of dense training where a row without a gradient stays as it is", "[parity]") {
  const DataSplits data = clicks_data();
  for (const std::string optimizer : {"type: sgd", "type: adagrad", "type: rowwise_adagrad, lr_decay: 0.1"})
    for (const int groups : {1, 3}) {
      INFO(optimizer << ", " << groups << " groups");
      Config config = with(optimizer);
      config.train.gradient_groups = groups;
      const RunRecord dense = reference_run(clicks(false), data, config);
      CHECK(same_values(dense, reference_run(clicks(true), data, config)));
    }
  for (const std::string optimizer : {"type: adam", "type: sgd, momentum: 0.9"}) {
    INFO(optimizer);
    CHECK_FALSE(same_values(reference_run(clicks(false), data, with(optimizer)),
                            reference_run(clicks(true), data, with(optimizer))));
  }
}

TEST_CASE("sparse training has the same bits for every cut, schedule, and resumed", "[parity]") {
  const Model model = clicks(true);
  const DataSplits data = clicks_data();
  for (const std::string& optimizer : kinds())
    for (const int groups : {1, 3}) {
      INFO(optimizer << ", " << groups << " groups");
      Config config = with_optimizer(optimizer);  // clipped
      config.train.gradient_groups = groups;
      const RunRecord reference = reference_run(model, data, config);
      CHECK(difference(reference, model, data, with_pipeline(config, 3, "1f1b")) == "");
      if (groups == 1) CHECK(difference(reference, model, data, with_pipeline(config, 2, "zb_h1")) == "");
      CHECK(broken_difference(reference, model, data, config) == "");
    }
}

TEST_CASE("sparse training has the same bits for every number of replicas, sharded and in central storage",
          "[parity]") {
  const Model model = clicks(true);
  const DataSplits data = clicks_data();
  for (const std::string& optimizer : kinds()) {
    Config config = with_optimizer(optimizer);  // clipped
    config.train.micro_batches = 4;
    config.train.gradient_groups = 4;
    const RunRecord reference = reference_run(model, data, config);
    for (const int count : {2, 3, 4})
      for (const auto strategy : {ReplicaStrategy::mirrored, ReplicaStrategy::central_storage})
        for (const bool shards : {false, true}) {
          if (shards && strategy != ReplicaStrategy::mirrored) continue;
          INFO(optimizer << ", " << count << " replicas, " << to_string(strategy) << ", shards " << shards);
          Config several = config;
          several.replicas.count = count;
          several.replicas.strategy = strategy;
          several.replicas.shard_optimizer = shards;
          CHECK(difference(reference, model, data, several) == "");
          if (count == 2) CHECK(difference(reference, model, data, with_pipeline(several, 2, "1f1b")) == "");
        }
  }
}

TEST_CASE("sparse training in bf16 and fp64 has the same bits for every cut", "[parity]") {
  for (const Precision precision : {Precision::bf16, Precision::fp64}) {
    Config config = with_optimizer("type: adagrad");
    config.train.precision = precision;
    const RunRecord reference = reference_run(clicks(true), clicks_data(), config);
    CHECK(difference(reference, clicks(true), clicks_data(), with_pipeline(config, 3, "1f1b")) == "");
  }
}

TEST_CASE("rows that no mini-batch uses keep their values and what is kept beside them", "[parity]") {
  const TemporaryFolder folder;
  Config config = with_optimizer("type: adam");
  config.checkpoint.every = "1";
  static_cast<void>(next_leg(clicks(true), clicks_data(), config, folder.path()));
  const std::string name = "embed.embeddings.3.weight";  // 500 values, of which 11 are used
  const std::string before = checkpoint_path(folder.path(), 3), after = checkpoint_path(folder.path(), 5);
  const at::Tensor moved = (saved(before, TensorKind::weight, name) != saved(after, TensorKind::weight, name)).any(1);
  CHECK(moved.sum().item<std::int64_t>() > 0);
  CHECK_FALSE(moved.narrow(0, 11, 489).any().item<bool>());
  CHECK_FALSE(saved(after, TensorKind::optimizer, name + ".exp_avg").narrow(0, 11, 489).any().item<bool>());
}

TEST_CASE("a sparse table knows what memory its gradients take", "[parity]") {
  const ModelGraph graph = Trainer(clicks(true), clicks_data(), with_optimizer("type: sgd")).graph();
  for (const ParameterInfo& parameter : graph.parameters)
    if (parameter.name == "embed.embeddings.3.weight") {
      CHECK(parameter.used_rows == 8 * 6);  // of a batch of 8, all fields of which the layer reads
      CHECK(parameter.gradient_elements() == 48 * (3 + 2));
      CHECK(parameter.elements() == 1500);
    } else if (parameter.name == "embed.embeddings.0.weight") {
      CHECK(parameter.used_rows == 11);
    }
}

TEST_CASE("what cannot be done to rows is refused, with the table's name", "[parity]") {
  const DataSplits data = clicks_data();
  const auto refusal = [&](const Config& config) {
    try {
      Trainer(clicks(true), data, config);
      return std::string("none");
    } catch (const UserError& error) {
      return std::string(error.what());
    }
  };
  using Catch::Contains;
  CHECK_THAT(refusal(with_optimizer("type: adafactor")),
             Contains("got adafactor, but embed.embeddings.0.weight is sparse"));
  CHECK_THAT(refusal(with_optimizer("type: sgd", ", ema: {decay: 0.9}")), Contains("ema: is given, but"));
  Config config = with_optimizer("type: sgd");
  config.train.post_validation = true;
  CHECK_THAT(refusal(config), Contains("post_validation: got true, but"));
  CHECK(refusal(with_optimizer("type: sgd")) == "none");
}
