// SPDX-License-Identifier: Apache-2.0
//
// Mistakes on purpose, one per argument. A sanitizer that does not report them is not working, whatever the other tests
// say: built in the sanitizer presets only, and its tests expect the report (CMakeLists.txt).
#include <ATen/ATen.h>

#include <atomic>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "runtime/comm/local_channel.hpp"

namespace {

using namespace lockstep;

long shared_counter = 0;

/// Two threads add to one number.
void race() {
  const auto add = [] {
    for (int i = 0; i < 100'000; ++i) ++shared_counter;
  };
  std::thread other(add);
  add();
  other.join();
  std::printf("%ld\n", shared_counter);
}

/// What channel.hpp forbids: the sender writes to a tensor that it has sent, and the receiver reads it. The flags make
/// them overlap and order nothing (relaxed).
void race_on_a_message() {
  LocalChannel channel;
  StopFlag stop;
  const WaitLimits limits{&stop, std::chrono::milliseconds(60'000)};
  std::atomic<bool> received{false}, written{false};
  std::thread receiver([&] {
    channel.post();
    const Message message = channel.receive(limits);
    const float* data = message.tensors[0].const_data_ptr<float>();
    received.store(true, std::memory_order_relaxed);
    float sum = 0;
    do {
      for (int i = 0; i < 16; ++i) sum += data[i];
    } while (!written.load(std::memory_order_relaxed));
    std::printf("%g\n", static_cast<double>(sum));
  });
  const at::Tensor tensor = at::zeros({16});
  channel.send({0, 0, {tensor}}, limits);
  float* data = tensor.mutable_data_ptr<float>();
  while (!received.load(std::memory_order_relaxed)) std::this_thread::yield();
  for (int round = 0; round < 2000; ++round)
    for (int i = 0; i < 16; ++i) data[i] += 1;
  written.store(true, std::memory_order_relaxed);
  channel.finish(limits);
  receiver.join();
}

/// Reads behind the end of what it allocated.
void overflow(int argc) {
  const auto numbers = std::make_unique<int[]>(8);
  std::printf("%d\n", numbers[static_cast<std::size_t>(argc + 6)]);
}

/// A sum that int cannot hold.
void undefined(int argc) {
  std::printf("%d\n", INT_MAX - 1 + argc);
}

/// Lets go of what it allocated.
void leak() {
  char* volatile lost = static_cast<char*>(std::calloc(4096, 1));
  static_cast<void>(lost);
  lost = nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "race") race();
  if (what == "message") race_on_a_message();
  if (what == "overflow") overflow(argc);
  if (what == "undefined") undefined(argc);
  if (what == "leak") leak();
  return 0;
}
