// SPDX-License-Identifier: Apache-2.0
#include "runtime/profile/measure.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <exception>
#include <thread>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/base/clock.hpp"
#include "runtime/base/median.hpp"
#include "runtime/engine/product_rate.hpp"
#include "runtime/profile/layer_bench.hpp"

namespace lockstep {
namespace {

constexpr int kWarmUps = 2;  // at least, and a tenth of the repeats
constexpr int kMostUpdates = 5;

struct Times {
  std::vector<double> forward_us, input_grad_us, weight_grad_us, all_us, update_us;

  void add(const StageReport& report) {
    forward_us.push_back(report.forward_us);
    input_grad_us.push_back(report.input_grad_us);
    weight_grad_us.push_back(report.weight_grad_us);
    all_us.push_back(report.forward_us + report.input_grad_us + report.weight_grad_us);
  }
  void add(const Times& other) {
    for (const auto which :
         {&Times::forward_us, &Times::input_grad_us, &Times::weight_grad_us, &Times::all_us, &Times::update_us})
      (this->*which).insert((this->*which).end(), (other.*which).begin(), (other.*which).end());
  }
};

/// What one thread holds: the layers of the group as benches, in the order of the model.
class GroupBench {
 public:
  explicit GroupBench(const GroupToMeasure& what)
      : pool_(0, what.options.stage.device),
        memory_(pool_),
        options_(what.options),
        watch_(DeviceStream(what.options.stage.device)),
        on_device_(watch_.stream()),
        noise_(bench_noise()) {
    // OpenMP counts threads per calling thread, as for workers.
    at::init_num_threads();
    at::set_num_threads(what.options.threads);
    std::vector<std::pair<int, std::size_t>> order;  // (layer, member)
    for (std::size_t member = 0; member < what.group.members.size(); ++member)
      for (const int layer : what.group.members[member].layers) order.emplace_back(layer, member);
    std::sort(order.begin(), order.end());
    {  // a worker pays for it once, not with each layer
      MemoryPool uncounted(0, what.options.stage.device);
      const MemoryPool::Scope memory(uncounted);
      set_up_products(watch_.stream(), what.options.stage.precision);
    }
    const MemoryPool::Scope memory(pool_, MemoryKind::parameters);
    for (const auto& [layer, member] : order)
      benches_.push_back({member, std::make_unique<LayerBench>(what, layer, noise_, pool_, watch_)});
    times_.resize(what.group.members.size());
  }

  std::vector<LayerSample> bytes() {
    std::vector<LayerSample> samples(times_.size());
    std::vector<bool> done(times_.size(), false);
    for (Entry& entry : benches_) {
      if (done[entry.member]) continue;
      samples[entry.member] = entry.bench->bytes();
      done[entry.member] = true;
    }
    return samples;
  }

  void forward() {
    begin_ = watch_.mark();
    for (Entry& entry : benches_) entry.bench->run_forward();
  }
  void backward(bool counts) {
    for (auto entry = benches_.rbegin(); entry != benches_.rend(); ++entry) entry->bench->run_backward();
    watch_.wait(begin_, watch_.mark());
    if (!counts) return;
    for (const Entry& entry : benches_) times_[entry.member].add(entry.bench->report());
  }
  void update(int step, bool counts) {
    for (Entry& entry : benches_) {
      const double us = entry.bench->update(step);
      if (counts) times_[entry.member].update_us.push_back(us);
    }
  }

  double most_seconds() const { return options_.most_seconds * static_cast<double>(times_.size()); }
  const std::vector<Times>& times() const { return times_; }  ///< by member

 private:
  struct Entry {
    std::size_t member;
    std::unique_ptr<LayerBench> bench;
  };

  MemoryPool pool_;
  const MemoryPool::Scope memory_;
  const MeasureOptions& options_;
  Stopwatch watch_;
  const DeviceStream::Scope on_device_;
  at::Tensor noise_;
  std::vector<Entry> benches_;
  std::vector<Times> times_;
  Stopwatch::Mark begin_;  // of the micro-batch
};

/// The threads that measure one group at the same time. Who leaves, done or failed, leaves the barrier too, so that
/// nobody waits for those who have gone.
struct Crew {
  explicit Crew(int count) : size(count), together(count) {}
  const int size;
  std::barrier<> together;
  std::atomic<int> done{0};  // with rounds that count
  std::atomic<bool> failed{false};
};

double seconds_since(double start_us) {
  return (now_us() - start_us) * 1e-6;
}

/// In a pipeline one worker's forward runs beside another's backward: every second thread begins with the backward.
/// Whoever has measured enough goes on until all have, so that nobody is measured beside an idle core.
void take_turns(GroupBench& bench, Crew& crew, int thread, bool is_warm, const MeasureOptions& options) {
  const bool backward_first = thread % 2 == 1;
  if (backward_first) bench.forward();
  crew.together.arrive_and_wait();
  const double start_us = now_us(), most_s = bench.most_seconds();
  int warm_ups = 0, measured = 0;
  bool enough = false;
  while (crew.done < crew.size && !crew.failed) {
    if (!backward_first) bench.forward();
    bench.backward(is_warm && !enough);
    if (backward_first) bench.forward();
    const double spent_s = seconds_since(start_us);
    if (!is_warm) {
      is_warm = ++warm_ups >= std::max(kWarmUps, options.repeats / 10) || spent_s > most_s / 4;
    } else if (!enough) {
      enough = ++measured >= options.repeats || (measured >= kFewestRepeats && spent_s > most_s);
      if (enough) ++crew.done;
    }
  }
  if (backward_first) bench.backward(false);
}

/// All at the same time, as at the end of a step.
void update(GroupBench& bench, Crew& crew, int repeats) {
  for (int round = 0; round <= std::min(repeats, kMostUpdates); ++round) {
    crew.together.arrive_and_wait();
    if (crew.failed) return;
    bench.update(round + 1, round > 0);
  }
}

/// Three decimals, for a file that people read.
double rounded(double number) {
  return std::round(number * 1e3) / 1e3;
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

/// What a run costs on average, which is what adds up to a step. Of the times of one piece of work most are near the
/// median and some are far above it, so that medians add up to 1 to 3 % less than a median step; what is more than
/// twice the median is a disturbance and counts as twice.
double typical(const std::vector<double>& values) {
  if (values.empty()) return 0;
  const double most = 2 * median(values);
  double sum = 0;
  for (const double value : values) sum += std::min(value, most);
  return sum / static_cast<double>(values.size());
}

void put_times(LayerSample& sample, const Times& times) {
  sample.forward_us = rounded(typical(times.forward_us));
  sample.input_grad_us = rounded(typical(times.input_grad_us));
  sample.weight_grad_us = rounded(typical(times.weight_grad_us));
  sample.update_us = rounded(typical(times.update_us));
  const double middle = median(times.all_us);
  sample.spread = middle > 0 ? rounded((quantile(times.all_us, 0.75) - quantile(times.all_us, 0.25)) / middle) : 0;
}

}  // namespace

std::vector<LayerSample> measure_layers(const GroupToMeasure& what) {
  const MeasureOptions& options = what.options;
  LOCKSTEP_CHECK(options.workers >= 1 && options.repeats >= kFewestRepeats, "workers ", options.workers, ", repeats ",
                 options.repeats);
  LOCKSTEP_CHECK(what.partition.stages() == what.graph.layer_count(), "a partition of ", what.partition.stages(),
                 " stages");
  Crew crew(options.workers);
  std::vector<std::vector<Times>> times(static_cast<std::size_t>(options.workers));
  std::vector<std::vector<LayerSample>> bytes(times.size());
  std::vector<std::exception_ptr> errors(times.size());
  const auto work = [&](std::size_t thread) {
    try {
      GroupBench bench(what);
      const double start_us = now_us();
      bytes[thread] = bench.bytes();
      // That was four micro-batches: of slow layers warm-up enough.
      const bool is_warm = seconds_since(start_us) > bench.most_seconds();
      take_turns(bench, crew, static_cast<int>(thread), is_warm, options);
      update(bench, crew, options.repeats);
      times[thread] = bench.times();
    } catch (...) {
      errors[thread] = std::current_exception();
      crew.failed = true;
    }
    crew.together.arrive_and_drop();
  };
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < times.size(); ++thread) threads.emplace_back(work, thread);
  for (std::thread& thread : threads) thread.join();
  // Each thread's stream keeps what it had, and there will be others.
  if (const c10::DeviceType type = options.stage.device.type(); type != c10::kCPU)
    at::getDeviceAllocator(type)->emptyCache();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);

  std::vector<LayerSample> samples = std::move(bytes[0]);
  for (std::size_t member = 0; member < samples.size(); ++member) {
    Times all;
    for (const std::vector<Times>& of_thread : times) all.add(of_thread[member]);
    samples[member].rows = what.rows;
    put_times(samples[member], all);
  }
  return samples;
}

void keep_busy(const GroupToMeasure& what, const std::atomic<bool>& stop) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < what.options.workers; ++thread)
    threads.emplace_back([&] {
      try {
        GroupBench bench(what);
        while (!stop) {
          bench.forward();
          bench.backward(false);
        }
      } catch (const std::exception&) {  // whoever measures these layers says so
      }
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace lockstep
