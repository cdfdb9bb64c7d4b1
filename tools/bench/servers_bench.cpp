// SPDX-License-Identifier: Apache-2.0
//
// Servers of weights (replicas.strategy: parameter_server).
//
// servers_bench slow: what one slow worker costs the others. Replicas whose computing is all sleeping, one of them
// --slow times as long. A sleeping worker shares a core, so this measures who waits for whom, and not the cores. In
// turns: asynchronous, synchronous (staleness 0), and one worker alone, from whose speed follow those of all: replicas
// - 1 of them, and one that is --slow times slower.
//
// servers_bench bytes: what a step of a sparse table sends and gets, against the rows that it uses, counted here.
//
//   servers_bench slow --replicas 4 --staleness 32 --slow 5 --share-ms 20 --steps 60 --rounds 5
//   servers_bench bytes --width 64
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

#include "runtime/base/median.hpp"
#include "runtime/layer/layers.hpp"
#include "runtime/training/trainer.hpp"

namespace lockstep {
namespace {

struct Options {
  int replicas = 4, servers = 1, staleness = 32, steps = 60, rounds = 5;
  double slow = 5, share_ms = 20;
  std::int64_t rows = 100'000, width = 64, batch = 4000;
};

/// Sleeps in each forward of a training step; the first thread of a run that comes to it, longer.
class Sleep : public Layer {
 public:
  Sleep(double ms, double slow) : ms_(ms), slow_(slow) {}
  std::string type() const override { return "sleep"; }
  LayerDescription describe(const std::vector<EntrySpec>& inputs) const override { return {{}, {inputs[0]}}; }
  Tensors forward(const Tensors& inputs, LayerContext& context) const override {
    if (context.training()) {
      const std::thread::id here = std::this_thread::get_id();
      {
        const std::lock_guard lock(mutex_);
        if (first_ == std::thread::id()) first_ = here;
      }
      std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(ms_ * (here == first_ ? slow_ : 1.0)));
    }
    return {inputs[0] * 1.0};
  }

 private:
  double ms_, slow_;
  mutable std::mutex mutex_;
  mutable std::thread::id first_;
};

class Samples : public Dataset {
 public:
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    return {{"x", at::kFloat, {rows, 8}, false}, {"targets", at::kFloat, {rows, 8}, false}};
  }
  std::int64_t size() const override { return 4096; }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    const at::Tensor all = at::ones({static_cast<std::int64_t>(samples.size()), 8});
    return {all, all};
  }
};

struct Measured {
  double shares_per_s = 0;
  std::int64_t most_stale = 0;
};

Measured run(const Options& options, int replicas, int staleness, double slow) {
  struct Watch : Observer {
    void on_result(const StepResult& result) override {
      if (result.step == 1) return;  // pays for starting
      us += result.elapsed_us;
      stale = std::max(stale, static_cast<std::int64_t>(result.staleness.size()) - 1);
    }
    double us = 0;
    std::int64_t stale = 0;
  } watch;
  const Model model{
      "sleeping", {{"sleep", std::make_shared<Sleep>(options.share_ms, slow)}, {"fc", std::make_shared<Linear>(8, 8)}}};
  DataSplits data;
  data.train = std::make_shared<Samples>();
  Config config;
  config.train.steps = options.steps;
  config.train.batch = config.train.micro_batches = replicas;
  config.train.loss = "mean_squared_error";
  config.replicas.count = replicas;
  config.replicas.strategy = ReplicaStrategy::parameter_server;
  config.replicas.servers = options.servers;
  config.replicas.max_staleness = staleness;
  Trainer trainer(model, data, config);
  trainer.fit({.observer = &watch});
  return {replicas * (options.steps - 1) / (watch.us * 1e-6), watch.stale};
}

std::string spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  char text[64];
  std::snprintf(text, sizeof text, "%.3f [%.3f, %.3f]", median(values), values.front(), values.back());
  return text;
}

void compare(const Options& options) {
  std::vector<double> alone, asynchronous, synchronous, share_async, share_sync;
  std::int64_t stale = 0;
  for (int round = 0; round < options.rounds; ++round) {
    const double one = run(options, 1, options.staleness, 1).shares_per_s;
    const double sum = one * (options.replicas - 1) + one / options.slow;
    const Measured late = run(options, options.replicas, options.staleness, options.slow);
    const double together = run(options, options.replicas, 0, options.slow).shares_per_s;
    alone.push_back(one);
    asynchronous.push_back(late.shares_per_s);
    synchronous.push_back(together);
    share_async.push_back(late.shares_per_s / sum);
    share_sync.push_back(together / sum);
    stale = std::max(stale, late.most_stale);
  }
  std::printf("one worker alone: %.1f shares/s\n", median(alone));
  std::printf(
      "%d replicas, one %.1f times slower, staleness at most %d (%ld seen): %.1f shares/s, of the sum of speeds %s\n",
      options.replicas, options.slow, options.staleness, static_cast<long>(stale), median(asynchronous),
      spread(share_async).c_str());
  std::printf("the same, staleness 0: %.1f shares/s, of the sum of speeds %s\n", median(synchronous),
              spread(share_sync).c_str());
}

/// Of one table, in int64 [rows, 1].
class Indices : public Dataset {
 public:
  explicit Indices(std::int64_t rows) : rows_(rows) {}
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    return {{"x", at::kLong, {rows, 1}, false, true, rows_}, {"targets", at::kFloat, {rows, 1, 1}, false}};
  }
  std::int64_t size() const override { return 100'000; }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    at::Tensor x = at::empty({static_cast<std::int64_t>(samples.size()), 1}, at::kLong);
    for (std::size_t i = 0; i < samples.size(); ++i)  // some rows twice and more
      x.mutable_data_ptr<std::int64_t>()[i] = samples[i] * samples[i] % (rows_ / 4);
    return {x, at::ones({x.size(0), 1, 1})};
  }

 private:
  std::int64_t rows_;
};

void count_bytes(const Options& options) {
  struct Watch : Observer {
    void on_result(const StepResult& result) override { steps.push_back(result); }
    std::vector<StepResult> steps;
  } watch;
  DataSplits data;
  data.train = std::make_shared<Indices>(options.rows);
  const Model model{
      "table",
      {{"table", std::make_shared<Embedding>(EmbeddingConfig{options.rows, options.width, /*sparse=*/true})},
       {"fc", std::make_shared<Linear>(options.width, 1)}}};
  Config config;
  config.train.steps = 12;
  config.train.batch = options.batch;
  config.train.micro_batches = config.replicas.count = 1;
  config.train.loss = "mean_squared_error";
  config.train.optimizer.type = OptimizerType::rowwise_adagrad;
  config.replicas.strategy = ReplicaStrategy::parameter_server;
  config.replicas.servers = options.servers;
  Trainer trainer(model, data, config);
  trainer.fit({.observer = &watch});
  std::printf("| step | rows | sent, of rows x (4 width + 8) | received |\n|---|---|---|---|\n");
  for (const StepResult& result : watch.steps) {
    if (result.step < 11) continue;
    const std::vector<std::int64_t> samples =
        trainer.assembly().sampler().batch((result.step - 1) * options.batch, options.batch);
    const at::Tensor x = data.train->read(samples)[0];
    const auto* first = x.const_data_ptr<std::int64_t>();
    const std::set<std::int64_t> rows(first, first + x.numel());
    const double all = static_cast<double>(rows.size()) * (4.0 * static_cast<double>(options.width) + 8);
    double sent = 0, received = 0;
    for (const WorkerReport& worker : result.workers) {
      sent += static_cast<double>(worker.sent_bytes);
      received += static_cast<double>(worker.received_bytes);
    }
    std::printf("| %ld | %zu | %.3f | %.3f |\n", static_cast<long>(result.step), rows.size(), sent / all,
                received / all);
  }
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  lockstep::Options options;
  CLI::App app("Servers of weights: what a slow worker costs the others, and what a sparse step sends.");
  app.require_subcommand(1);
  CLI::App* slow = app.add_subcommand("slow", "what one slow worker costs the others");
  slow->add_option("--replicas", options.replicas)->capture_default_str();
  slow->add_option("--servers", options.servers)->capture_default_str();
  slow->add_option("--staleness", options.staleness, "max_staleness of the asynchronous side")->capture_default_str();
  slow->add_option("--slow", options.slow, "so many times longer one worker sleeps")->capture_default_str();
  slow->add_option("--share-ms", options.share_ms, "sleep of a share")->capture_default_str();
  slow->add_option("--steps", options.steps)->capture_default_str();
  slow->add_option("--rounds", options.rounds)->capture_default_str();
  CLI::App* bytes = app.add_subcommand("bytes", "what a step of a sparse table sends and gets");
  bytes->add_option("--servers", options.servers)->capture_default_str();
  bytes->add_option("--rows", options.rows, "of the table")->capture_default_str();
  bytes->add_option("--width", options.width, "of a row")->capture_default_str();
  bytes->add_option("--batch", options.batch)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    if (slow->parsed())
      lockstep::compare(options);
    else
      lockstep::count_bytes(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "servers_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
