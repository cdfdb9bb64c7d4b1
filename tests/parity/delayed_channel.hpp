// SPDX-License-Identifier: Apache-2.0
//
// Channels on which everything takes a random while, from a seed: which message is ready first changes from run to run,
// and with it the interleaving of the workers. Nothing else may change. The waits are not there to order anything.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <thread>

#include "runtime/comm/channel.hpp"
#include "runtime/engine/job.hpp"

namespace lockstep::test {

/// Mostly nothing or some 10 us, now and then 2 ms. One per end of a channel: each end belongs to a thread.
class Delays {
 public:
  Delays(unsigned seed, std::atomic<long>& count) : random_(seed), count_(count) {}
  void wait() {
    const unsigned draw = static_cast<unsigned>(random_() >> 8);
    if (draw % 4 < 2) return;
    ++count_;
    std::this_thread::sleep_for(std::chrono::microseconds(draw % 64 == 3 ? 2000 : draw / 64 % 100));
  }

 private:
  std::minstd_rand random_;
  std::atomic<long>& count_;
};

class DelayedChannel : public Channel {
 public:
  DelayedChannel(std::unique_ptr<Channel> channel, unsigned seed, std::atomic<long>& count)
      : channel_(std::move(channel)), sending_(2 * seed + 1, count), receiving_(2 * seed + 2, count) {}

  void post() override {
    receiving_.wait();
    channel_->post();
  }
  Message receive(const WaitLimits& limits) override {
    receiving_.wait();
    Message message = channel_->receive(limits);
    receiving_.wait();
    return message;
  }
  bool arrived() override { return channel_->arrived(); }
  void send(Message message, const WaitLimits& limits) override {
    sending_.wait();
    channel_->send(std::move(message), limits);
    sending_.wait();
  }
  void finish(const WaitLimits& limits) override {
    sending_.wait();
    channel_->finish(limits);
  }

  bool is_local() const override { return channel_->is_local(); }
  bool wants_host_memory() const override { return channel_->wants_host_memory(); }

 private:
  std::unique_ptr<Channel> channel_;
  Delays sending_, receiving_;
};

/// For JobSpec::wrap_channel. `count`: how often somebody was delayed.
inline WrapChannel delayed(unsigned seed, std::atomic<long>& count) {
  return [seed, &count](std::unique_ptr<Channel> channel, int edge) {
    return std::make_unique<DelayedChannel>(std::move(channel), seed * 10'007 + static_cast<unsigned>(edge), count);
  };
}

}  // namespace lockstep::test
