// SPDX-License-Identifier: Apache-2.0
//
// What Lockstep costs where nothing is cut: one worker in process, against the training loop that a good LibTorch user
// would write by hand. Same model (`layers` times Linear and GELU), same initial weights, same samples in the same
// order, same fused optimizer, one thread, one binary: so both take the same GEMM path. Reading the batch is inside
// the time of both.
//
//   loop_bench                        batches of 512 and 64 in 8 micro-batches, 5 rounds of A B A B
//   loop_bench --batch 512 --optimizer sgd --json out/bench/loop.json
//
// A round trains by hand and then with Lockstep, both from the start, each on a fresh thread. Times are those of single
// steps, without the first ones of a round; the ratio is taken round by round. Both must end at the same bits: exit
// code 1 when they do not.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "runtime/base/clock.hpp"
#include "runtime/layer/gemm_path.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/layer/random.hpp"
#include "runtime/layer/tensor_hash.hpp"
#include "runtime/training/trainer.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::json;

struct Options {
  std::vector<std::int64_t> batches = {512, 64};
  int layers = 8;
  std::int64_t width = 1024;
  int micro_batches = 8;
  int steps = 30;
  int skip = 5;
  int rounds = 5;
  std::string optimizer = "adamw";
  std::string gemm = "auto";
  bool check_finite = true;
  std::string json;
};

constexpr double kLearningRate = 1e-4, kWeightDecay = 0.01;
constexpr std::uint64_t kSeed = 1;

/// Random rows that lie in memory: four batches, so that an epoch has more than one.
class Samples : public Dataset {
 public:
  Samples(std::int64_t count, std::int64_t width) {
    const RandomScope scope(mix_seed(kSeed, 0, 0, "loop_bench"));
    x_ = at::randn({count, width});
    targets_ = at::randn({count, width});
  }
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    const std::vector<std::int64_t> sizes = {rows, x_.size(1)};
    return {{"x", at::kFloat, sizes, false}, {"targets", at::kFloat, sizes, false}};
  }
  std::int64_t size() const override { return x_.size(0); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    const at::Tensor index = at::tensor(samples);
    return {at::index_select(x_, 0, index), at::index_select(targets_, 0, index)};
  }

 private:
  at::Tensor x_, targets_;
};

Model bench_model(const Options& options) {
  Model model{"mlp", {}};
  for (int i = 0; i < options.layers; ++i) {
    model.layers.push_back({concat("fc.", i), std::make_shared<Linear>(options.width, options.width)});
    model.layers.push_back({concat("act.", i), std::make_shared<Activation>("gelu")});
  }
  return model;
}

Config bench_config(const Options& options, std::int64_t batch) {
  Config config;
  config.name = "loop_bench";
  config.seed = kSeed;
  config.train.steps = options.steps + options.skip;
  config.train.batch = batch;
  config.train.micro_batches = options.micro_batches;
  config.train.loss = "mean_squared_error";
  config.train.optimizer.type = find_enum<OptimizerType>(options.optimizer).value();
  config.train.optimizer.lr = kLearningRate;
  config.train.optimizer.weight_decay = kWeightDecay;
  config.train.stop_on_nan = options.check_finite;
  return config;
}

/// Everything that one training gave.
struct Training {
  std::vector<double> step_ms;  ///< every step
  double loss = 0;              ///< of the last step
  Tensors weights;              ///< in model order
};

// ---- by hand ----

class HandLoop {
 public:
  HandLoop(const Options& options, const ModelGraph& graph, const Dataset& data, std::int64_t batch)
      : options_(options), data_(data), batch_(batch), sampler_(data.size(), kSeed) {
    for (const ParameterInfo& parameter : graph.parameters) {
      weights_.push_back(initial_value(parameter, kSeed, at::kCPU));
      first_.push_back(at::zeros_like(weights_.back()));
      second_.push_back(at::zeros_like(weights_.back()));
      steps_.push_back(at::zeros({}));
      weights_.back().requires_grad_(true);
    }
  }

  Training run() {
    Training training;
    for (int step = 1; step <= options_.steps + options_.skip; ++step) {
      const double start_us = now_us();
      training.loss = train_step(step);
      training.step_ms.push_back((now_us() - start_us) / 1e3);
    }
    for (const at::Tensor& weight : weights_) training.weights.push_back(weight.detach());
    return training;
  }

 private:
  double train_step(int step) {
    const std::vector<std::int64_t> samples = sampler_.batch(position_, batch_);
    position_ += batch_;
    const Tensors batch = data_.read(samples);
    const auto denominator = static_cast<double>(batch[1].numel());
    double loss_sum = 0;
    std::int64_t start = 0;
    for (const std::int64_t rows : slice_rows(batch_, options_.micro_batches, batch_)) {
      const at::Tensor numerator = forward(batch[0].narrow(0, start, rows), batch[1].narrow(0, start, rows));
      (numerator / denominator).backward();
      loss_sum += numerator.item<double>();
      start += rows;
    }
    update(step);
    return loss_sum / denominator;
  }

  at::Tensor forward(at::Tensor x, const at::Tensor& targets) const {
    for (std::size_t i = 0; i < weights_.size(); i += 2) x = at::gelu(at::linear(x, weights_[i], weights_[i + 1]));
    return at::mse_loss(x, targets, at::Reduction::Sum);
  }

  void update(int step) {
    at::NoGradGuard no_grad;
    Tensors gradients;
    for (const at::Tensor& weight : weights_) gradients.push_back(weight.grad());
    if (options_.optimizer == "sgd") {
      at::_fused_sgd_(weights_, gradients, at::TensorList{}, kWeightDecay, /*momentum=*/0.0, kLearningRate,
                      /*dampening=*/0.0, /*nesterov=*/false, /*maximize=*/false, /*is_first_step=*/step == 1);
    } else {
      for (at::Tensor& count : steps_) count.fill_(static_cast<double>(step));
      at::_fused_adamw_(weights_, gradients, first_, second_, at::TensorList{}, steps_, kLearningRate, 0.9, 0.999,
                        kWeightDecay, 1e-8, /*amsgrad=*/false, /*maximize=*/false, std::nullopt, std::nullopt);
    }
    for (const at::Tensor& weight : weights_) weight.mutable_grad().reset();
  }

  const Options& options_;
  const Dataset& data_;
  std::int64_t batch_;
  Sampler sampler_;
  std::int64_t position_ = 0;
  Tensors weights_, first_, second_, steps_;
};

/// On a thread of its own, as Lockstep's worker: memory that a thread frees goes back to that thread's heap.
Training train_by_hand(const Options& options, const ModelGraph& graph, const Dataset& data, std::int64_t batch) {
  Training training;
  std::exception_ptr failure;
  std::thread thread([&] {
    try {
      at::init_num_threads();
      at::set_num_threads(1);
      training = HandLoop(options, graph, data, batch).run();
    } catch (...) {
      failure = std::current_exception();
    }
  });
  thread.join();
  if (failure) std::rethrow_exception(failure);
  return training;
}

// ---- with Lockstep ----

class StepTimes : public Observer {
 public:
  void on_result(const StepResult& result) override {
    step_ms.push_back(result.elapsed_us / 1e3);
    loss = result.loss();
  }
  std::vector<double> step_ms;
  double loss = 0;
};

Training train_with_lockstep(Trainer& trainer) {
  StepTimes times;
  RunOptions fit;
  fit.observer = &times;
  const JobOutcome outcome = trainer.fit(fit);
  Training training{times.step_ms, times.loss, Tensors(outcome.parameters.size())};
  for (const FinalParameter& parameter : outcome.parameters)
    training.weights.at(static_cast<std::size_t>(parameter.index)) = parameter.value;
  return training;
}

// ---- comparing ----

struct Summary {
  double median = 0, min = 0, max = 0;
};

Summary summary_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back()};
}

Summary summary_of_steps(const Training& training, int skip) {
  return summary_of({training.step_ms.begin() + skip, training.step_ms.end()});
}

Json to_json(const Summary& summary) {
  return {{"median", summary.median}, {"min", summary.min}, {"max", summary.max}};
}

/// Empty when both ended at the same bits, else where they first differ.
std::string difference(const ModelGraph& graph, const Training& hand, const Training& ours) {
  for (std::size_t i = 0; i < hand.weights.size(); ++i) {
    if (hash_of(hand.weights[i]) == hash_of(ours.weights[i])) continue;
    const at::Tensor distance = (hand.weights[i] - ours.weights[i]).abs();
    return concat(graph.parameters[i].name, " differs in ", distance.ne(0).sum().item<std::int64_t>(), " of ",
                  distance.numel(), " elements, by ", distance.max().item<double>(), " at most");
  }
  return "";
}

struct Round {
  Summary hand, ours;
  std::string difference;
  double ratio() const { return ours.median / hand.median; }
};

Round run_round(const Options& options, std::int64_t batch, const std::shared_ptr<const Samples>& samples) {
  Trainer trainer(bench_model(options), {samples, nullptr}, bench_config(options, batch));
  const Training hand = train_by_hand(options, trainer.graph(), *samples, batch);
  const Training ours = train_with_lockstep(trainer);
  if (ours.step_ms.size() != hand.step_ms.size())
    throw Error(concat("Lockstep reported ", ours.step_ms.size(), " steps, expected ", hand.step_ms.size()));
  return {summary_of_steps(hand, options.skip), summary_of_steps(ours, options.skip),
          difference(trainer.graph(), hand, ours)};
}

void print_row(std::int64_t batch, const std::string& round, const Summary& hand, const Summary& ours,
               const std::string& ratio) {
  std::printf("%6lld  %-6s  %9.2f [%8.2f, %8.2f]  %9.2f [%8.2f, %8.2f]  %s\n", static_cast<long long>(batch),
              round.c_str(), hand.median, hand.min, hand.max, ours.median, ours.min, ours.max, ratio.c_str());
  std::fflush(stdout);
}

std::string fixed3(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", value);
  return text;
}

/// Of the rounds' medians.
Json conclude(std::int64_t batch, const std::vector<Round>& rounds) {
  std::vector<double> hand, ours, ratios;
  Json list = Json::array();
  for (const Round& round : rounds) {
    hand.push_back(round.hand.median);
    ours.push_back(round.ours.median);
    ratios.push_back(round.ratio());
    list.push_back({{"hand_ms", to_json(round.hand)},
                    {"lockstep_ms", to_json(round.ours)},
                    {"ratio", round.ratio()},
                    {"difference", round.difference}});
  }
  const Summary ratio = summary_of(ratios);
  print_row(batch, "median", summary_of(hand), summary_of(ours),
            fixed3(ratio.median) + " [" + fixed3(ratio.min) + ", " + fixed3(ratio.max) + "]");
  return {{"batch", batch},
          {"hand_ms", to_json(summary_of(hand))},
          {"lockstep_ms", to_json(summary_of(ours))},
          {"ratio", to_json(ratio)},
          {"rounds", list}};
}

Json run_batch(const Options& options, std::int64_t batch, bool& same_bits) {
  const auto samples = std::make_shared<const Samples>(4 * batch, options.width);
  std::vector<Round> rounds;
  for (int round = 1; round <= options.rounds; ++round) {
    rounds.push_back(run_round(options, batch, samples));
    const Round& last = rounds.back();
    print_row(batch, std::to_string(round), last.hand, last.ours,
              fixed3(last.ratio()) + (last.difference.empty() ? "" : "  OTHER BITS: " + last.difference));
    same_bits = same_bits && last.difference.empty();
  }
  return conclude(batch, rounds);
}

int run(const Options& options) {
  for (const std::int64_t batch : options.batches)
    if (batch < options.micro_batches)
      throw UserError(concat("--batch ", batch, " cannot be cut into ", options.micro_batches,
                             " micro-batches; give a larger batch or a smaller --micro-batches"));
  if (options.gemm == "default") opt_out_of_gemm_cure();
  const std::string kernels = gemm_path().reason;
  std::printf("%d x (Linear %lld, GELU), %d micro-batches, %s, 1 thread, %d steps a round after %d\nkernels: %s\n\n",
              options.layers, static_cast<long long>(options.width), options.micro_batches, options.optimizer.c_str(),
              options.steps, options.skip, kernels.c_str());
  std::printf("%6s  %-6s  %-30s  %-30s  %s\n", "batch", "round", "by hand: ms a step [min, max]", "lockstep", "ratio");
  Json cases = Json::array();
  bool same_bits = true;
  for (const std::int64_t batch : options.batches) cases.push_back(run_batch(options, batch, same_bits));
  std::printf("\nweights at the end: %s\n", same_bits ? "the same bits in every round" : "OTHER BITS, see above");
  if (!options.json.empty()) {
    const Json result = {{"bench", "loop"},
                         {"layers", options.layers},
                         {"width", options.width},
                         {"micro_batches", options.micro_batches},
                         {"optimizer", options.optimizer},
                         {"steps", options.steps},
                         {"skipped", options.skip},
                         {"check_finite", options.check_finite},
                         {"kernels", kernels},
                         {"same_bits", same_bits},
                         {"cases", cases}};
    std::ofstream out(options.json);
    out << result.dump(2) << "\n";
    if (!out.flush()) throw UserError("cannot write " + options.json);
  }
  return same_bits ? 0 : 1;
}

void add_options(CLI::App& app, Options& options) {
  const CLI::Range positive(1, 1 << 20);
  app.add_option("--batch", options.batches, "Samples a step (repeatable)")->check(positive)->capture_default_str();
  app.add_option("--layers", options.layers, "Pairs of Linear and GELU")->check(positive)->capture_default_str();
  app.add_option("--width", options.width, "Of every layer")->check(positive)->capture_default_str();
  app.add_option("--micro-batches", options.micro_batches, "Per step")->check(positive)->capture_default_str();
  app.add_option("--steps", options.steps, "Measured steps per round")->check(positive)->capture_default_str();
  app.add_option("--skip", options.skip, "Steps before them")->check(CLI::Range(0, 1 << 20))->capture_default_str();
  app.add_option("--rounds", options.rounds, "Of both, one after the other")->check(positive)->capture_default_str();
  app.add_option("--optimizer", options.optimizer, "sgd or adamw, fused")
      ->check(CLI::IsMember({"sgd", "adamw"}))
      ->capture_default_str();
  app.add_option("--gemm", options.gemm, "auto, or default: without the AMD GEMM cure, on both sides")
      ->check(CLI::IsMember({"auto", "default"}))
      ->capture_default_str();
  app.add_option("--check-finite", options.check_finite, "0: as with train.stop_on_nan: false")->capture_default_str();
  app.add_option("--json", options.json, "Write the figures to this file");
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  CLI::App app{"One Lockstep worker against a training loop written by hand with LibTorch", "loop_bench"};
  lockstep::Options options;
  lockstep::add_options(app, options);
  CLI11_PARSE(app, argc, argv);
  try {
    return lockstep::run(options);
  } catch (const lockstep::Error& error) {
    std::fprintf(stderr, "loop_bench: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "loop_bench: %s\n", error.what());
    return 1;
  }
}
