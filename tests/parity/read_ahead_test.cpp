// SPDX-License-Identifier: Apache-2.0
//
// Reading ahead changes no bit, hands every error to the step that it belongs to, and calls a data set as it allows.
#include <ATen/ATen.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>

#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// Draws depend on their numbers; it knows who reads it.
class Watched : public Dataset {
 public:
  std::int64_t samples = 21, fails_at = -1;
  bool parallel = false;
  int wait_for = 0;  ///< the first reads wait until so many are under way
  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  mutable int now = 0, most = 0, reads = 0;
  mutable std::multiset<std::int64_t> drawn;

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    return {{.name = "x", .dtype = at::kFloat, .sizes = {rows, 6}, .differentiable = false},
            {.name = "targets", .dtype = at::kFloat, .sizes = {rows, 3}, .differentiable = false}};
  }
  std::int64_t size() const override { return samples; }
  bool reads_in_parallel() const override { return parallel; }
  Tensors read(const std::vector<std::int64_t>& wanted) const override { return made(wanted, {}); }
  Tensors draw(const std::vector<std::int64_t>& wanted, std::int64_t first) const override {
    enter();
    {
      const std::lock_guard lock(mutex);
      for (std::size_t i = 0; i < wanted.size(); ++i) drawn.insert(first + static_cast<std::int64_t>(i));
    }
    const Tensors entries = made(wanted, first);
    leave();
    if (fails_at >= first && fails_at < first + static_cast<std::int64_t>(wanted.size()))
      throw std::runtime_error("the disk is gone");
    return entries;
  }

 private:
  Tensors made(const std::vector<std::int64_t>& wanted, std::optional<std::int64_t> first) const {
    at::Tensor x = at::empty({static_cast<std::int64_t>(wanted.size()), 6});
    for (std::size_t i = 0; i < wanted.size(); ++i)
      for (int j = 0; j < 6; ++j)
        x[static_cast<std::int64_t>(i)][j] =
            std::sin(static_cast<double>(wanted[i] * 7 + j)) +
            (first ? 0.01 * static_cast<double>(*first + static_cast<std::int64_t>(i)) : 0.0);
    return {x, x.narrow(1, 0, 3).clone()};
  }
  void enter() const {
    std::unique_lock lock(mutex);
    most = std::max(most, ++now);
    ++reads;
    changed.notify_all();
    if (reads <= wait_for) changed.wait(lock, [&] { return reads >= wait_for; });
  }
  void leave() const {
    const std::lock_guard lock(mutex);
    --now;
  }
};

struct Job {
  Model model = mlp_with_skip(0.0, true);
  std::shared_ptr<Watched> train = std::make_shared<Watched>();
  DataSplits data{train, std::make_shared<Watched>()};
  Config config = small_config("mean_squared_error", 8, 4);
  Job() {
    config.train.eval_every = 2;
    config.train.steps = 7;
  }
};

}  // namespace

TEST_CASE("bits do not know who reads, how far ahead, for how many replicas", "[parity]") {
  Job job;
  job.train->parallel = true;
  Config config = job.config;
  config.workers.readers = 0;
  config.train.gradient_groups = 4;
  const RunRecord reference = reference_run(job.model, job.data, config);
  for (const auto& [readers, ahead] : {std::pair(1, 1), {1, 3}, {3, 2}, {4, 7}}) {
    CAPTURE(readers, ahead);
    config.workers.readers = readers;
    config.workers.read_ahead = ahead;
    config.replicas.count = 1;
    CHECK(difference(reference, job.model, job.data, config) == "");
    config.replicas.count = 2;
    CHECK(difference(reference, job.model, job.data, with_pipeline(config, 2, "1f1b")) == "");
  }
}

TEST_CASE("draws are numbered through the epochs, and none beyond the last step is read", "[parity]") {
  Job job;
  job.config.workers.read_ahead = 5;
  job.config.train.eval_every = 0;
  Trainer(job.model, job.data, job.config).fit();
  std::multiset<std::int64_t> expected;  // 8 + 8 + 5, twice, and 8
  for (std::int64_t draw = 0; draw < 50; ++draw) expected.insert(draw);
  CHECK(job.train->drawn == expected);
}

TEST_CASE("a data set that does not say that it may is read by one thread at a time", "[parity]") {
  Job job;
  job.config.workers.readers = 4;
  Trainer(job.model, job.data, job.config).fit();
  CHECK(job.train->most == 1);
  Job other;
  other.config.workers.readers = 3;
  other.train->parallel = true;
  other.train->wait_for = 3;  // else it would wait for ever
  Trainer(other.model, other.data, other.config).fit();
  CHECK(other.train->most == 3);
}

TEST_CASE("what goes wrong ahead of time is told when its step comes", "[parity]") {
  class Steps : public Observer {
   public:
    void on_result(const StepResult& result) override { last = result.step; }
    std::int64_t last = 0;
  };
  Job job;
  job.config.train.eval_every = 0;
  job.config.workers.read_ahead = 6;
  job.train->fails_at = 30;  // in step 5
  Steps steps;
  RunOptions options;
  options.observer = &steps;
  Trainer trainer(job.model, job.data, job.config);
  CHECK_THROWS_WITH(trainer.fit(options), Catch::Contains("step 4") && Catch::Contains("the disk is gone"));
  CHECK(steps.last >= 2);  // results come two steps late
}

TEST_CASE("the time that a step stood still for data is reported", "[parity]") {
  class Waits : public Observer {
   public:
    void on_result(const StepResult& result) override {
      for (const WorkerReport& worker : result.workers) us[worker.row] += worker.data_us;
    }
    std::map<int, double> us;
  };
  Job job;
  Waits waits;
  RunOptions options;
  options.observer = &waits;
  Trainer(job.model, job.data, with_pipeline(job.config, 2, "1f1b")).fit(options);
  CHECK(waits.us.at(0) > 0);
  CHECK(waits.us.at(1) == 0);  // it reads nothing
}
