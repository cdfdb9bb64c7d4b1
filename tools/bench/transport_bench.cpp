// SPDX-License-Identifier: Apache-2.0
//
// What the MPI transport costs. Run under mpirun:
//
//   mpirun -n 2 transport_bench pingpong     one-way time and bandwidth between rank 0 and 1, 8 B to 64 MiB
//   mpirun -n 2 transport_bench pingpong-fresh   the same into memory fresh from the kernel
//   mpirun -n 8 transport_bench ring         time per hop of a small message that goes round all ranks
//   mpirun -n 8 transport_bench hog          how much slower rank 0 computes while all other ranks wait for it
//   mpirun -n 2 transport_bench overlap      64 MiB that arrive while the receiver computes: how long it then still
//   waits
#include <ATen/ops/ones.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <thread>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/launcher.hpp"
#include "runtime/comm/mpi/mpi_endpoint.hpp"

namespace lockstep {
namespace {

const StopFlag never;
const WaitLimits kLimits{&never, std::chrono::milliseconds(60'000)};

Message message_of_bytes(std::int64_t bytes) {
  return {0, 0, {at::ones({bytes}, at::device(at::kCPU).dtype(at::kByte))}};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Hands out the same memory again once it is free, as the worker's caching allocator does: fresh pages cost more than
/// the transfer.
MpiEndpoint::Allocate reusing() {
  return [last = at::Tensor()](at::IntArrayRef sizes, at::ScalarType dtype) mutable {
    if (!last.defined() || last.use_count() > 1 || last.sizes() != sizes || last.scalar_type() != dtype)
      last = at::ones(sizes, at::device(at::kCPU).dtype(dtype));
    return last;
  };
}

/// Rank 0 sends `bytes` to rank 1 and gets them back. Returns the one-way time.
double ping_pong_us(MpiWorld& world, Channel& out, Channel& in, std::int64_t bytes, int rounds) {
  const Message message = message_of_bytes(bytes);
  const double start = now_us();
  for (int i = 0; i < rounds; ++i) {
    in.post();
    if (world.rank() == 0) out.send(message, kLimits);
    in.receive(kLimits);
    if (world.rank() == 1) out.send(message, kLimits);
  }
  out.finish(kLimits);
  return (now_us() - start) / rounds / 2;
}

void ping_pong(MpiWorld& world, MpiEndpoint& endpoint, MpiEndpoint::Allocate allocate) {
  if (world.rank() > 1) return;
  auto out = endpoint.sender(1 - world.rank(), 0);
  auto in = endpoint.receiver(1 - world.rank(), 0, allocate);
  if (world.rank() == 0) std::printf("%12s %14s %10s\n", "bytes", "one way (us)", "GB/s");
  for (std::int64_t bytes = 8; bytes <= 64 << 20; bytes *= bytes < 4096 ? 8 : 4) {
    const int rounds = static_cast<int>(std::clamp<std::int64_t>((256 << 20) / bytes, 5, 2000));
    std::vector<double> times;
    for (int repeat = 0; repeat < 9; ++repeat) times.push_back(ping_pong_us(world, *out, *in, bytes, rounds));
    const double us = *std::min_element(times.begin(), times.end());  // of nine: other jobs only ever add
    if (world.rank() == 0)
      std::printf("%12lld %14.2f %10.2f\n", static_cast<long long>(bytes), us, static_cast<double>(bytes) / us / 1e3);
  }
}

void ring(MpiWorld& world, MpiEndpoint& endpoint) {
  auto out = endpoint.sender((world.rank() + 1) % world.size(), 0);
  auto in = endpoint.receiver((world.rank() + world.size() - 1) % world.size(), 0);
  const Message message = message_of_bytes(64);
  constexpr int kRounds = 300;
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) {
    const double start = now_us();
    in->post();
    if (world.rank() == 0) out->send(message, kLimits);
    in->receive(kLimits);
    if (world.rank() != 0) out->send(message, kLimits);
    times.push_back((now_us() - start) / world.size());
  }
  out->finish(kLimits);
  if (world.rank() == 0)
    std::printf("ring of %d ranks: %.1f us a hop (median of %d rounds), best %.1f\n", world.size(), median(times),
                kRounds, *std::min_element(times.begin(), times.end()));
}

/// A fixed piece of work that never leaves the CPU. Returns its time.
double compute_us(int million_steps) {
  const double start = now_us();
  volatile double x = 1;
  for (std::int64_t i = 0; i < std::int64_t{1'000'000} * million_steps; ++i) x = x * 1.0000001 + 1e-9;
  return now_us() - start;
}

double cpu_us() {
  timespec used{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) * 1e6 + static_cast<double>(used.tv_nsec) / 1e3;
}

void hog(MpiWorld& world, MpiEndpoint& endpoint) {
  constexpr int kRepeats = 5, kMillionSteps = 200;
  std::vector<std::unique_ptr<Channel>> out;
  for (int rank = 1; rank < world.size() && world.rank() == 0; ++rank) out.push_back(endpoint.sender(rank, 0));
  auto in = endpoint.receiver(0, 0);
  std::vector<double> alone, watched, share;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    for (const bool others_wait : {false, true}) {
      world.barrier();
      if (world.rank() == 0) {
        (others_wait ? watched : alone).push_back(compute_us(kMillionSteps));
        for (auto& channel : out) channel->send(message_of_bytes(8), kLimits);
        continue;
      }
      // Not waiting: asleep without polling for longer than the work takes.
      if (!others_wait) std::this_thread::sleep_for(std::chrono::milliseconds(10 * kMillionSteps));
      const double start = now_us(), used = cpu_us();
      in->post();
      in->receive(kLimits);
      if (others_wait) share.push_back((cpu_us() - used) / (now_us() - start));
    }
  }
  const auto shares = world.all_gather(share.empty() ? "" : std::to_string(100 * median(share)));
  if (world.rank() != 0) return;
  const auto best = [](const std::vector<double>& times) {
    return *std::min_element(times.begin(), times.end()) / 1e3;
  };
  std::printf(
      "rank 0 of %d, best of %d: %.1f ms alone, %.1f ms while the others wait in receive: ratio %.3f (medians %.3f)\n",
      world.size(), kRepeats, best(alone), best(watched), best(watched) / best(alone), median(watched) / median(alone));
  std::printf("a waiting rank uses %% of a core:%s\n", join(shares, " ").c_str());
}

void overlap(MpiWorld& world, MpiEndpoint& endpoint) {
  if (world.rank() > 1) return;
  constexpr std::int64_t kBytes = 64 << 20;
  auto out = endpoint.sender(1 - world.rank(), 0);
  auto in = endpoint.receiver(1 - world.rank(), 0, reusing());
  std::vector<double> waits, computes;
  const double alone = world.rank() == 1 ? compute_us(60) : 0;
  for (int i = 0; i < 7; ++i) {
    in->post();
    if (world.rank() == 0) {
      in->receive(kLimits);
      out->send(message_of_bytes(kBytes), kLimits);
      out->finish(kLimits);
    } else {
      out->send(message_of_bytes(8), kLimits);
      computes.push_back(compute_us(60));
      const double start = now_us();
      in->receive(kLimits);
      waits.push_back(now_us() - start);
    }
  }
  if (world.rank() == 1)
    std::printf("64 MiB during %.1f ms of compute (%.1f alone): the receiver then waits %.0f us\n",
                median(computes) / 1e3, alone / 1e3, median(waits));
}

int run(const std::string& mode) {
  if (!launched())
    throw UserError(
        "start it under mpirun: mpirun -n 2 transport_bench pingpong | pingpong-fresh | ring | hog | overlap");
  MpiWorld world;
  MpiEndpoint endpoint(world);
  if (mode == "pingpong")
    ping_pong(world, endpoint, reusing());
  else if (mode == "pingpong-fresh")
    ping_pong(world, endpoint, {});
  else if (mode == "ring")
    ring(world, endpoint);
  else if (mode == "hog")
    hog(world, endpoint);
  else if (mode == "overlap")
    overlap(world, endpoint);
  else
    throw UserError("unknown mode `" + mode + "`: pingpong, pingpong-fresh, ring, hog or overlap");
  return 0;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  try {
    return lockstep::run(argc > 1 ? argv[1] : "pingpong");
  } catch (const lockstep::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
