// SPDX-License-Identifier: Apache-2.0
#include "runtime/profile/links.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <thread>

#include "runtime/base/clock.hpp"
#include "runtime/base/median.hpp"
#include "runtime/comm/local_channel.hpp"
#include "runtime/device/handover.hpp"
#include "runtime/device/staging.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kSmallBytes = 256, kLargeBytes = std::int64_t{8} << 20;
constexpr int kRepeats = 9;
/// Before it sends, each side computes for so long: the other one has fallen asleep by then, as it will in a run, and
/// what waking it takes is most of what a small message costs.
constexpr double kWorkUs = 1000;

void work(double us) {
  const double start_us = now_us();
  while (now_us() - start_us < us) {
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
      if (begins) work(kWorkUs), out.send(message, limits);
      in.receive(limits);
      if (!begins) work(kWorkUs), out.send(message, limits);
    }
    out.finish(limits);
    if (repeat > 0) times.push_back(std::max(0.0, (now_us() - start_us) / rounds / 2 - kWorkUs));
  }
  return median(times);
}

double copy_us(const Handover& sender, Handover& receiver, std::int64_t bytes) {
  const at::NoGradGuard no_grad;
  const at::Device from = sender.stream().device(), to = receiver.stream().device();
  const DeviceStream::Scope sending(sender.stream());
  const at::Tensor tensor = at::zeros({bytes}, at::TensorOptions(at::kByte).device(from));
  std::vector<double> times;
  for (int repeat = 0; repeat <= kRepeats; ++repeat) {
    sender.stream().synchronize();
    const double start_us = now_us();
    {
      const DeviceStream::Scope receiving(receiver.stream());
      const at::Tensor taken = to_device(receiver.take({tensor}, sender.loan()).front(), to);
      receiver.stream().synchronize();
    }
    if (repeat > 0) times.push_back(now_us() - start_us);
    sender.stream().synchronize();
    sender.collect();
  }
  return median(times);
}

LinkCost link_cost(double small_us, double large_us) {
  LinkCost cost;
  cost.latency_us = small_us;
  if (large_us > small_us) cost.bytes_per_us = static_cast<double>(kLargeBytes) / (large_us - small_us);
  return cost;
}

}  // namespace

LinkCost measure_link(Channel& out, Channel& in, bool begins, const WaitLimits& limits) {
  constexpr int small_rounds = 20, large_rounds = 3;
  const double small_us = one_way_us(out, in, begins, kSmallBytes, small_rounds, limits);
  return link_cost(small_us, one_way_us(out, in, begins, kLargeBytes, large_rounds, limits));
}

LinkCost measure_copy(at::Device from, at::Device to) {
  const Handover sender(from);
  Handover receiver(to);
  const double small_us = copy_us(sender, receiver, kSmallBytes);
  return link_cost(small_us, copy_us(sender, receiver, kLargeBytes));
}

double measure_busy(Channel& out, Channel& in, bool begins, const std::function<void()>& look, const LinkCost& link,
                    const WaitLimits& limits) {
  constexpr double between_looks_us = 100, least_us = 10'000;
  const Message message{0, 0, {at::zeros({kLargeBytes}, at::TensorOptions(at::kByte))}};
  const double window_us = std::max(least_us, 4 * static_cast<double>(kLargeBytes) / link.bytes_per_us);
  double spent_us = 0;
  const auto timed = [&](const auto& call) {
    const double start_us = now_us();
    call();
    spent_us += now_us() - start_us;
  };
  const auto compute = [&] {
    for (const double end_us = now_us() + window_us; now_us() < end_us; timed(look)) work(between_looks_us);
  };
  std::vector<double> times;
  for (int repeat = 0; repeat <= kRepeats; ++repeat) {
    for (const bool sends : {begins, !begins}) {
      spent_us = 0;
      if (sends) {
        timed([&] { out.send(message, limits); });
        compute();
        timed([&] { out.finish(limits); });
      } else {
        timed([&] { in.post(); });
        compute();
        timed([&] { in.receive(limits); });
      }
      if (repeat > 0) times.push_back(spent_us);
    }
  }
  return median(times) / static_cast<double>(kLargeBytes);
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
