// SPDX-License-Identifier: Apache-2.0
#include "runtime/profile/adding.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <barrier>
#include <thread>

#include "runtime/base/clock.hpp"
#include "runtime/base/median.hpp"
#include "runtime/device/stream.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kElements = std::int64_t{4} << 20;  // more than caches have
constexpr int kRepeats = 9;

double bytes_per_us(c10::Device device) {
  const at::NoGradGuard no_grad;
  const DeviceStream stream(device);
  const DeviceStream::Scope scope(stream);
  const at::Tensor sum = at::ones({kElements}, at::TensorOptions(at::kFloat).device(device)),
                   other = at::ones_like(sum);
  stream.synchronize();
  std::vector<double> times;
  for (int repeat = 0; repeat <= kRepeats; ++repeat) {
    const double start_us = now_us();
    sum.add_(other);
    stream.synchronize();
    if (repeat > 0) times.push_back(now_us() - start_us);
  }
  return static_cast<double>(sum.nbytes()) / median(times);
}

}  // namespace

double measure_adding(c10::Device device, int workers, int threads) {
  std::vector<double> rates(static_cast<std::size_t>(workers));
  std::barrier all_ready(workers);
  std::vector<std::thread> running;
  for (double& rate : rates)
    running.emplace_back([&] {
      at::init_num_threads();
      at::set_num_threads(threads);
      all_ready.arrive_and_wait();
      rate = bytes_per_us(device);
    });
  for (std::thread& thread : running) thread.join();
  return *std::min_element(rates.begin(), rates.end());
}

}  // namespace lockstep
