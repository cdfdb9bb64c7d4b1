// SPDX-License-Identifier: Apache-2.0
//
// What a user is told of settings that are legal and senseless, and of a training that has gone wrong.
#include "runtime/config/doubts.hpp"

#include "tests/test.hpp"

namespace lockstep {
namespace {

std::vector<std::string> doubts(const std::string& train, std::int64_t samples = 64) {
  const std::string text = "model: {type: mlp}\ndata: {type: csv}\ntrain: {loss: mean_squared_error, " + train + "}\n";
  std::vector<std::string> found = doubts_of(read_config(load_config_text(text, "job.yaml")), samples);
  for (std::string& doubt : found) {
    CHECK(doubt.starts_with("job.yaml:3:"));
    doubt.erase(0, doubt.find(": ") + 2);
  }
  return found;
}

}  // namespace

TEST_CASE("a setting that contradicts another or does nothing is told, with its place", "[unit]") {
  struct Case {
    const char* train;
    const char* doubt;
  };
  const std::vector<Case> cases = {
      {"steps: 5, batch: 65", "train.batch: got 65, but there are 64 training samples: every step trains with 64"},
      {"steps: 5, batch: 8, optimizer: {lr: 0}", "train.optimizer.lr: got 0: no parameter will change"},
      {"steps: 5, batch: 8, optimizer: {type: sgd, momentum: 1.5}",
       "train.optimizer.momentum: got 1.5: no gradient is ever forgotten, so that updates grow without bound; it is "
       "usually 0.9"},
      {"steps: 5, batch: 8, optimizer: {lr: 1000}",
       "train.optimizer.weight_decay: got 0.01 with lr 1000: an update takes 10 times each weight away from it; their "
       "product is usually far below 1"},
      {"steps: 5, batch: 8, lr_schedule: {warmup_steps: 10}",
       "train.lr_schedule.warmup_steps: got 10, but training has 5 steps: it ends in the warm-up, at a learning rate "
       "of 0.0005 instead of 0.001"},
      {"steps: 5, batch: 8, lr_schedule: {type: cosine, min_lr: 0.1}",
       "train.lr_schedule.min_lr: got 0.1, which is above lr (0.001): the learning rate rises"},
      {"steps: 50, batch: 8, lr_schedule: {type: linear, warmup_steps: 9, decay_steps: 5}",
       "train.lr_schedule.decay_steps: got 5, which is not after the warm-up (9 steps): the learning rate drops to "
       "min_lr at once; it is counted from step 1"},
      {"steps: 50, batch: 8, lr_schedule: {type: wsd, warmup_steps: 9, stable_steps: 5, decay_steps: 5}",
       "train.lr_schedule.decay_steps: got 5, which is not after the warm-up (9 steps): the learning rate drops to "
       "min_lr at once; it is counted from step 1"},
      {"steps: 20, batch: 8, lr_schedule: {type: wsd, warmup_steps: 5, stable_steps: 15}",
       "train.lr_schedule.stable_steps: got 15, with which the decay begins behind step 20, and ends at step 20: the "
       "learning rate hardly decays"},
      {"steps: 5, batch: 8, lr_schedule: {type: step, step_every: 5}",
       "train.lr_schedule.step_every: got 5, but training has 5 steps: the learning rate never drops"},
      {"steps: 20, batch: 8, eval_every: 5, lr_schedule: {type: plateau, patience: 3}",
       "train.lr_schedule.patience: got 3, but training has 4 evaluations: the learning rate is never reduced"},
      {"steps: 5, batch: 8, lr_schedule: {type: step, step_every: 2, step_factor: 2}",
       "train.lr_schedule.step_factor: got 2, which is above 1: the learning rate rises"},
      {"steps: 5, batch: 8, eval_steps: 3",
       "train.eval_steps: does nothing without train.eval_every: training evaluates nothing"},
  };
  for (const Case& the : cases) {
    INFO(the.train);
    CHECK(doubts(the.train) == std::vector<std::string>{the.doubt});
  }
}

TEST_CASE("keys of devices are doubted where there are CPUs alone", "[unit]") {
  const auto doubts_on = [](const std::string& devices) {
    const std::string text =
        "model: {type: mlp}\ndata: {type: csv}\ntrain: {loss: mean_squared_error, steps: 5, batch: 8}\n"
        "kernels: {deterministic: false, float32_matmul: tf32}\ncomm: {device_buffers: true}\nworkers: {devices: [" +
        devices + "]}\n";
    return doubts_of(read_config(load_config_text(text, "job.yaml")), 64);
  };
  CHECK(doubts_on("cpu, cpu") ==
        std::vector<std::string>{
            "job.yaml:4:26: kernels.deterministic: got false, which does nothing on CPUs: they are deterministic",
            "job.yaml:4:49: kernels.float32_matmul: got tf32, which does nothing on CPUs: it is of devices",
            "job.yaml:5:24: comm.device_buffers: got true, which does nothing on CPUs: it is of devices"});
  CHECK(doubts_on("cpu, 'cuda:1'").empty());
}

TEST_CASE("a job that makes sense raises no doubt", "[unit]") {
  for (const char* train :
       {"steps: 5, batch: 64", "steps: 5, batch: 1, eval_every: 100, log_every: 100, eval_batch: 7",
        "steps: 5, batch: 8, lr_schedule: {type: cosine, warmup_steps: 5, min_lr: 0.001, decay_steps: 100}",
        "steps: 5, batch: 8, lr_schedule: {type: step, step_every: 4}, optimizer: {type: adam, lr: 10, weight_decay: "
        "1}"}) {
    INFO(train);
    CHECK(doubts(train).empty());
  }
}

TEST_CASE("a loss that ends far above its start is told, one that jumps or falls is not", "[unit]") {
  Config config;
  config.train.optimizer.lr = 1000;
  CHECK(
      doubt_of_losses({0.5, 3, 1e9, 1e20, 1e20, 1e20, 1e20, 1.38e28}, config) ==
      "the loss has grown from 0.5 in the first step to 1.38e+28 in the last: the model has become worse, not better; "
      "lower train.optimizer.lr (it is 1000) or clip gradients (train.clip_grad_norm)");
  CHECK(doubt_of_losses({0.5, 1e9}, config) != "");
  CHECK(doubt_of_losses({0.5, 0.4, 1e9, 0.3, 0.2}, config) == "");
  CHECK(doubt_of_losses({0.5, 0.4, 0.3, 0.2, 0.3, 0.2, 0.1, 1e9}, config) == "");  // one batch
  CHECK(doubt_of_losses({0.5, 5, 40, 45, 49, 49, 49, 49}, config) == "");
  CHECK(doubt_of_losses({0, 1, 1}, config) == "");  // from nothing every loss is infinitely far away
  CHECK(doubt_of_losses({1}, config) == "");
  CHECK(doubt_of_losses({}, config) == "");
}

}  // namespace lockstep
