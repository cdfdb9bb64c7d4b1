// SPDX-License-Identifier: Apache-2.0
//
// The channel between two workers of one process: hands the tensors over by pointer. Waiting is a short spin, then a
// sleep on a condition variable (a futex), so that a waiting worker costs the computing ones nothing.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>

#include "runtime/comm/channel.hpp"

namespace lockstep {

class LocalChannel : public Channel {
 public:
  void post() override;
  Message receive(const WaitLimits& limits) override;
  bool arrived() override { return sent_ >= posted_; }
  void send(Message message, const WaitLimits& limits) override;
  void finish(const WaitLimits& limits) override;
  bool is_local() const override { return true; }
  bool wants_host_memory() const override { return false; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Message> messages_;  // sent and not yet received: two at most, by the rules of send
  std::atomic<std::int64_t> posted_{0}, sent_{0}, received_{0};

  template <typename Ready>
  void wait(const WaitLimits& limits, const Ready& ready);
};

}  // namespace lockstep
