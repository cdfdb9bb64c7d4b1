// SPDX-License-Identifier: Apache-2.0
#include "runtime/profile/links.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <thread>

#include "runtime/base/clock.hpp"
#include "runtime/comm/local_channel.hpp"
#include "runtime/schedule/measured.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kSmallBytes = 256, kLargeBytes = std::int64_t{8} << 20;
constexpr int kRepeats = 9;
/// Before it sends, each side computes for so long: the other one has fallen asleep by then, as it will in a run, and
/// what waking it takes is most of what a small message costs.
constexpr double kWorkUs = 1000;

void work() {
  const double start_us = now_us();
  while (now_us() - start_us < kWorkUs) {
  }
}

/// There and back, `rounds` times; the one-way time of a round, of several repeats the median.
double one_way_us(Channel& out, Channel& in, bool begins, std::int64_t bytes, int rounds, const WaitLimits& limits) {
  const Message message{0, 0, {at::zeros({bytes}, at::TensorOptions(at::kByte))}};
  std::vector<double> times;
  for (int repeat = 0; repeat <= kRepeats; ++repeat) {
    const double start_us = now_us();
    for (int round = 0; round < rounds; ++round) {
      in.post();
      if (begins) work(), out.send(message, limits);
      in.receive(limits);
      if (!begins) work(), out.send(message, limits);
    }
    out.finish(limits);
    if (repeat > 0) times.push_back(std::max(0.0, (now_us() - start_us) / rounds / 2 - kWorkUs));
  }
  return median(times);
}

}  // namespace

LinkCost measure_link(Channel& out, Channel& in, bool begins, const WaitLimits& limits) {
  constexpr int small_rounds = 20, large_rounds = 3;
  LinkCost cost;
  cost.latency_us = one_way_us(out, in, begins, kSmallBytes, small_rounds, limits);
  const double large_us = one_way_us(out, in, begins, kLargeBytes, large_rounds, limits);
  if (large_us > cost.latency_us) cost.bytes_per_us = static_cast<double>(kLargeBytes) / (large_us - cost.latency_us);
  return cost;
}

LinkCost measure_local_link() {
  LocalChannel there, back;
  const StopFlag never;
  const WaitLimits limits{&never};
  constexpr int rounds = 20;
  std::thread other([&] { one_way_us(back, there, false, kSmallBytes, rounds, limits); });
  LinkCost cost;
  cost.latency_us = one_way_us(there, back, true, kSmallBytes, rounds, limits);
  other.join();
  return cost;
}

double measure_work_us() {
  constexpr int size = 512, products = 4;
  const at::NoGradGuard no_grad;
  const at::Tensor a = at::full({size, size}, 0.5f), b = at::full({size, size}, 0.25f);
  std::vector<double> times;
  for (int repeat = 0; repeat < 2 * kRepeats + 2; ++repeat) {
    const double start_us = now_us();
    for (int i = 0; i < products; ++i) at::mm(a, b);
    if (repeat >= 2) times.push_back(now_us() - start_us);
  }
  return median(times);
}

}  // namespace lockstep
