// SPDX-License-Identifier: Apache-2.0
//
// What the channel claims need of a transport: some workers, channels between them, and a way to run one function per
// worker. Catch's assertions belong to one thread, so workers use expect(), and the claim fails with what they threw.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <thread>

#include "runtime/comm/channel.hpp"

namespace lockstep::test {

struct FabricOptions {
  std::int64_t block_bytes = std::int64_t{1} << 30;
  bool synchronous_sends = false;
};

/// Workers 0..workers()-1, each one thread of this process or of another rank. Worker 0 and 1 are as far apart as
/// possible.
class Fabric {
 public:
  virtual ~Fabric() = default;
  virtual int workers() const = 0;
  virtual bool is_here(int worker) const = 0;
  /// The halves of lane `lane` of the edge from one worker to another; only for the end that is here.
  virtual Channel& sender(int from, int to, int lane) = 0;
  virtual Channel& receiver(int from, int to, int lane) = 0;
  /// Returns when all ranks have come.
  virtual void meet() = 0;

  static constexpr int kLanes = 3;
};

/// A fresh fabric: nothing of an earlier one is left in its channels. Each transport defines it.
std::unique_ptr<Fabric> make_fabric(const FabricOptions& options = {});

inline void expect(bool condition, const std::string& message) {
  if (!condition) throw std::runtime_error("expected: " + message);
}

/// Runs body(worker) in one thread per worker of this process; throws what the workers threw, in one message.
inline void run(Fabric& fabric, const std::function<void(int worker)>& body) {
  std::vector<std::thread> threads;
  std::vector<std::string> failures(static_cast<std::size_t>(fabric.workers()));
  for (int worker = 0; worker < fabric.workers(); ++worker) {
    if (!fabric.is_here(worker)) continue;
    threads.emplace_back([&body, &failures, worker] {
      try {
        body(worker);
      } catch (const std::exception& error) {
        failures[static_cast<std::size_t>(worker)] = concat("worker ", worker, ": ", error.what());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  fabric.meet();
  std::erase(failures, "");
  if (!failures.empty()) throw std::runtime_error(join(failures, "; "));
}

/// Worker 0 does one thing, worker 1 the other.
inline void run_pair(Fabric& fabric, const std::function<void()>& worker_0, const std::function<void()>& worker_1) {
  run(fabric, [&](int worker) {
    if (worker == 0) worker_0();
    if (worker == 1) worker_1();
  });
}

/// A tensor whose bytes are a function of the seed.
inline at::Tensor patterned(std::vector<std::int64_t> sizes, at::ScalarType dtype, unsigned seed) {
  at::Tensor tensor = at::empty(sizes, at::device(at::kCPU).dtype(dtype));
  auto* bytes = static_cast<unsigned char*>(tensor.mutable_data_ptr());
  std::minstd_rand next(seed + 1);
  const unsigned mask = dtype == at::kBool ? 1 : 255;
  for (std::size_t i = 0; i < tensor.nbytes(); ++i) bytes[i] = static_cast<unsigned char>((next() >> 8) & mask);
  return tensor;
}

inline void expect_same(const at::Tensor& got, const at::Tensor& expected, const std::string& where) {
  expect(got.defined() == expected.defined(), "definedness of " + where);
  if (!got.defined()) return;
  expect(got.scalar_type() == expected.scalar_type(), "dtype of " + where);
  expect(got.sizes() == expected.sizes(), "shape of " + where);
  expect(got.is_contiguous(), "contiguous: " + where);
  expect(got.nbytes() == 0 || std::memcmp(got.const_data_ptr(), expected.const_data_ptr(), got.nbytes()) == 0,
         "bytes of " + where);
}

inline void expect_same(const Message& got, const Message& expected, const std::string& where) {
  expect(got.sequence == expected.sequence,
         concat("sequence ", expected.sequence, ", got ", got.sequence, ": ", where));
  expect(got.micro_batch == expected.micro_batch, "micro-batch of " + where);
  expect(got.tensors.size() == expected.tensors.size(), "number of tensors of " + where);
  for (std::size_t i = 0; i < got.tensors.size(); ++i)
    expect_same(got.tensors[i], expected.tensors[i], concat("tensor ", i, " of ", where));
}

/// 0 to 4 tensors of any dtype and shape, some undefined or empty; the same for the same seed on every rank.
inline Message random_message(unsigned seed) {
  constexpr at::ScalarType kTypes[] = {at::kFloat,    at::kDouble, at::kBool, at::kLong,
                                       at::kBFloat16, at::kByte,   at::kHalf, at::kComplexFloat};
  std::mt19937 random(seed);
  const auto below = [&random](unsigned limit) { return static_cast<unsigned>(random() % limit); };
  Message message;
  message.sequence = static_cast<std::int64_t>(seed) << 32;
  message.micro_batch = static_cast<int>(below(5)) - 1;
  for (unsigned tensors = below(5); tensors > 0; --tensors) {
    std::vector<std::int64_t> sizes;
    for (unsigned dims = below(5); dims > 0; --dims) sizes.push_back(below(8) == 0 ? 0 : 1 + below(18));
    const at::ScalarType dtype = kTypes[below(8)];
    message.tensors.push_back(below(6) == 0 ? at::Tensor() : patterned(sizes, dtype, random()));
  }
  return message;
}

}  // namespace lockstep::test
