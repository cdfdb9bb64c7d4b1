// SPDX-License-Identifier: Apache-2.0
#include "partitioner/plan_file.hpp"

#include <limits>

#include "tests/test.hpp"

using namespace lockstep;

namespace {

PlanFile small_plan() {
  PlanFile plan;
  plan.config = "it's.yaml";
  plan.model = "small";
  plan.layers = 3;
  plan.signature = "0123456789abcdef";
  plan.batch = 10;
  plan.micro_batches = 4;
  plan.choice.layers_per_stage = {2, 1};
  plan.choice.placement = {1, 0};
  plan.recompute_text = "['h.*']";
  plan.workers = {{1, std::numeric_limits<double>::infinity(), {0, 0}}, {0.5, 2147483648.0, {1, 0}}};
  plan.key = "00000000000000ff";
  PlanPrediction& p = plan.predicted.emplace();
  p.step_us = 12000;
  p.alone_us = 13000;
  p.bubble = 0.25;
  p.bubble_steady = 0.125;
  p.compute_us = {9000, 8000};
  p.wait_us = {3000, 4000};
  p.peak_bytes = {1e6, 2e6};
  p.stages = {{0, 2, 100, 2, 1200}, {1, 1, 50, 1, 600}};
  p.layers = {{"a", 1, 2, 3, 24}, {"b: c", 4, 5, 6, 60}, {"'d'", 7, 8, 9, 96}};
  p.costs = equal_costs(2, 5, 7, 9);
  p.costs.stages[1].recompute_us = 5;
  p.costs.update_us = {10, 20};
  p.costs.flow_bytes = {4096};
  p.costs.shared_bytes = {};
  p.costs.links.same_host = {5, 6000};
  p.costs.places = {{1, 0}, {0, 0}};  // by row: row 0 is on worker 1
  return plan;
}

PlanFile reread(const std::string& text) {
  return read_plan(load_config_text(text, "plan.yaml"));
}

std::string with(const std::string& before, const std::string& after) {
  std::string text = to_yaml(small_plan());
  const auto at = text.find(before);
  REQUIRE(at != std::string::npos);
  return text.replace(at, before.size(), after);
}

std::string refusal(const std::string& text) {
  try {
    reread(text);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

/// A config that the plan can be laid over.
const char* const kConfig =
    "model: {type: mlp}\ndata: {type: random}\ntrain: {steps: 5, batch: 10, loss: mse, micro_batches: 4}\n"
    "pipeline: {stages: 3, schedule: zbv, in_flight_limit: 7}\n";

Config laid_over(const std::string& plan, const std::vector<std::string>& overrides = {}) {
  return read_config(load_config_text(kConfig, "job.yaml", overrides, {{"pipeline", reread(plan).pipeline}}));
}

}  // namespace

TEST_CASE("a plan reads back as it was written", "[unit][plan]") {
  const PlanFile plan = small_plan();
  const PlanFile back = reread(to_yaml(plan));
  CHECK(back.config == plan.config);
  CHECK(back.model == plan.model);
  CHECK(back.layers == plan.layers);
  CHECK(back.signature == plan.signature);
  CHECK(back.batch == plan.batch);
  CHECK(back.micro_batches == plan.micro_batches);
  REQUIRE(back.workers.size() == 2);
  CHECK(back.workers[0].limit_bytes == plan.workers[0].limit_bytes);
  CHECK(back.workers[1].limit_bytes == plan.workers[1].limit_bytes);
  CHECK(back.workers[1].speed == 0.5);
  CHECK(back.workers[1].place == plan.workers[1].place);
  CHECK(back.key == plan.key);
  REQUIRE(back.predicted);
  const PlanPrediction &a = *back.predicted, &b = *plan.predicted;
  CHECK(a.step_us == b.step_us);
  CHECK(a.alone_us == b.alone_us);
  CHECK(a.bubble == b.bubble);
  CHECK(a.bubble_steady == b.bubble_steady);
  CHECK(a.compute_us == b.compute_us);
  CHECK(a.wait_us == b.wait_us);
  CHECK(a.peak_bytes == b.peak_bytes);
  REQUIRE(a.stages.size() == 2);
  CHECK(a.stages[1].row == 1);
  CHECK(a.stages[0].layers == 2);
  CHECK(a.stages[0].parameters == 100);
  CHECK(a.stages[0].in_flight == 2);
  CHECK(a.stages[1].state_bytes == 600);
  REQUIRE(a.layers.size() == 3);
  CHECK(a.layers[1].name == "b: c");
  CHECK(a.layers[2].name == "'d'");
  CHECK(a.layers[2].step_us == 96);
  CHECK(a.costs.stages[0].weight_grad_us == 9);
  CHECK(a.costs.stages[1].recompute_us == 5);
  CHECK(a.costs.update_us == b.costs.update_us);
  CHECK(a.costs.flow_bytes == b.costs.flow_bytes);
  CHECK(a.costs.links.same_host == b.costs.links.same_host);
  CHECK(a.costs.links.other_host == b.costs.links.other_host);
  CHECK(a.costs.places == b.costs.places);
}

TEST_CASE("a plan says on what its workers compute, where that is not the host alone", "[unit][plan]") {
  PlanFile plan = small_plan();
  for (const char* word : {"device", "kind:", "cpu", "to_host"}) CHECK(to_yaml(plan).find(word) == std::string::npos);
  CHECK_FALSE(uses_devices(reread(to_yaml(plan)).workers));
  const Config config = laid_over(to_yaml(plan));
  const std::string on_host = prediction_key(config, plan.workers);
  plan.workers[0].place.device = plan.predicted->costs.places[1].device = "cuda:1";
  plan.workers[0].kind = "cuda NVIDIA H100 80GB HBM3";
  plan.predicted->costs.links.to_device = {9, 20000};
  CHECK(prediction_key(config, plan.workers) != on_host);
  CHECK(to_yaml(plan).find("- {speed: 1, limit: none, rank: 0, host: 0, device: cuda:1, kind: 'cuda NVIDIA H100 80GB "
                           "HBM3'}\n  - {speed: 0.5, limit: 2GiB, rank: 1, host: 0, device: cpu}\n") !=
        std::string::npos);
  const PlanFile back = reread(to_yaml(plan));
  CHECK(uses_devices(back.workers));
  CHECK(back.workers[0].place == plan.workers[0].place);
  CHECK(back.workers[0].kind == plan.workers[0].kind);
  CHECK(back.workers[1].kind == "cpu");
  CHECK(back.predicted->costs.places == plan.predicted->costs.places);
  CHECK(back.predicted->costs.links.to_device == plan.predicted->costs.links.to_device);
  plan.workers[0].kind = "cuda";  // a card that nobody named
  CHECK(reread(to_yaml(plan)).workers[0].kind == "cuda");
}

TEST_CASE("idle workers and what layers cost are part of a plan", "[unit][plan]") {
  PlanFile plan = small_plan();
  CHECK(idle_text(plan).empty());
  CHECK(reread(to_yaml(plan)).idle.empty());
  plan.idle = {1, 3};
  plan.predicted->with_all_us = 13500;
  plan.profile = "format: 2\nlayers:\n  - {\"name\":\"a: b\",\"signature\":\"x\",\"samples\":[{\"rows\":2}]}\n";
  const PlanFile back = reread(to_yaml(plan));
  CHECK(back.idle == plan.idle);
  CHECK(back.predicted->with_all_us == 13500);
  CHECK(back.predicted_micro_batches == 4);
  CHECK(back.root.section("profile").sections("layers")[0].get<std::string>("name") == "a: b");
  PlanFile again = back;
  again.choice = plan.choice;
  CHECK(reread(to_yaml(again)).profile == back.profile);
  CHECK(idle_text(back) == "2 of 4 workers: 12.0 ms a step; with all 4: 13.5 ms");
  plan.predicted->with_all_us = 0;
  CHECK(idle_text(reread(to_yaml(plan))) ==
        "2 of 4 workers: 12.0 ms a step; with all 4 nothing fits, or there are too few layers");
  plan.predicted->step_us = 39e6;
  plan.predicted->with_all_us = 39.6e6;
  CHECK(idle_text(plan) == "2 of 4 workers: 39.0 s a step; with all 4: 39.6 s");
}

TEST_CASE("a plan of the first form, without profile and predicted micro-batches, is read", "[unit][plan]") {
  std::string text = to_yaml(small_plan());
  const std::string since = concat("  micro_batches: ", small_plan().micro_batches, "\n");
  REQUIRE(text.find("predicted:\n") < text.find(since));
  text.erase(text.find(since), since.size());
  const PlanFile plan = reread(text);
  CHECK(plan.predicted_micro_batches == small_plan().micro_batches);
  CHECK(plan.profile.empty());
}

TEST_CASE("a plan without a prediction is a plan", "[unit][plan]") {
  PlanFile plan = small_plan();
  plan.predicted.reset();
  CHECK_FALSE(reread(to_yaml(plan)).predicted);
}

TEST_CASE("a plan's pipeline takes the place of the config's, key by key", "[unit][plan]") {
  const Config config = laid_over(to_yaml(small_plan()));
  CHECK(config.pipeline.stages == 2);
  CHECK(config.pipeline.virtual_stages == 1);
  CHECK(config.pipeline.schedule == "1f1b");
  CHECK(config.pipeline.partition.counts == std::vector<int>{2, 1});
  CHECK(config.pipeline.recompute == Recompute::always);
  CHECK(config.pipeline.recompute_layers == std::vector<std::string>{"h.*"});
  CHECK(config.pipeline.placement == std::vector<int>{1, 0});
  CHECK(config.pipeline.in_flight_limit == 7);  // a plan has no such key
  CHECK(config.train.micro_batches == 4);
}

TEST_CASE("only the keys that an overlay names are laid over", "[unit][plan]") {
  const Section over = load_config_text("{batch: 20, micro_batches: 5}", "over.yaml");
  const Config config = read_config(load_config_text(kConfig, "job.yaml", {}, {{"train", over, {"micro_batches"}}}));
  CHECK(config.train.batch == 10);
  CHECK(config.train.micro_batches == 5);
}

TEST_CASE("overrides come after the plan", "[unit][plan]") {
  CHECK(laid_over(to_yaml(small_plan()), {"pipeline.schedule=gpipe"}).pipeline.schedule == "gpipe");
}

TEST_CASE("what is wrong in an edited pipeline is named with the plan's line", "[unit][plan]") {
  const auto refused = [](const std::string& text) {
    try {
      laid_over(text);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK(refused(with("partition: [2, 1]", "partition: [2, 0]")) ==
        "plan.yaml:15:18: pipeline.partition[1]: got 0, expected an integer >= 1");
  CHECK(refused(with("  stages: 2", "  stages: 3")) ==
        "plan.yaml:15:14: pipeline.partition: got 2 stages, expected 3 as pipeline.stages says; change one of the two");
  CHECK(
      refused(with("placement: [1, 0]", "placement: [1, 1]")) ==
      "plan.yaml:17:14: pipeline.placement: got [1, 1], expected each of 0 to 1 once: a worker for each of the 2 rows");
}

TEST_CASE("what is no plan is refused with its place", "[unit][plan]") {
  CHECK(
      refusal(with("format: 2", "format: 3")) ==
      "plan.yaml:3:9: format: got 3, expected 2; another version of Lockstep wrote it: plan again with lockstep plan");
  CHECK(refusal(with("  schedule: 1f1b", "  schedul: 1f1b")) ==
        "plan.yaml:14:3: pipeline.schedul: got an unknown key, expected one of stages, virtual_stages, schedule, "
        "partition, recompute, placement; did you mean 'schedule'?");
  CHECK(refusal(with("micro_batches: 4}", "micro_batches: 0}")) ==
        "plan.yaml:7:35: train.micro_batches: got 0, expected an integer >= 1");
  CHECK(refusal(with("limit: 2GiB", "limit: 2 gigs")).find("workers[1].limit: got 2 gigs, expected a size such as") !=
        std::string::npos);
  CHECK(refusal(with("worker: 1, compute_ms", "worker: 2, compute_ms")).find("predicted.workers[0].worker: got 2") !=
        std::string::npos);
  CHECK(refusal("format: 2\n") == "plan.yaml:1:1: model: missing, expected a mapping");
}

TEST_CASE("a prediction belongs to the pipeline and the numerics that it was made for", "[unit][plan]") {
  const std::string plan = to_yaml(small_plan());
  std::vector<PlannedWorker> workers = reread(plan).workers;
  const std::string key = prediction_key(laid_over(plan), workers);
  CHECK(prediction_key(laid_over(plan), workers) == key);
  CHECK(prediction_key(laid_over(plan), small_plan().workers) == key);
  workers[0].limit_bytes = 7;
  CHECK(prediction_key(laid_over(plan), workers) == key);
  workers[0].speed = 0.9;
  CHECK(prediction_key(laid_over(plan), workers) != key);
  workers = reread(plan).workers;
  for (const char* other :
       {"pipeline.partition=[1, 2]", "pipeline.schedule=gpipe", "pipeline.recompute=never", "pipeline.placement=[0, 1]",
        "train.batch=12", "train.micro_batches=5", "train.precision=bf16", "train.optimizer.type=sgd",
        "train.clip_grad_norm=1", "workers.threads=2"}) {
    INFO(other);
    CHECK(prediction_key(laid_over(plan, {other}), workers) != key);
  }
  // What changes neither times nor bytes.
  for (const char* same : {"train.steps=7", "train.optimizer.lr=1", "run_dir=x", "workers.memory_limit=1GiB"})
    CHECK(prediction_key(laid_over(plan, {same}), workers) == key);
}
