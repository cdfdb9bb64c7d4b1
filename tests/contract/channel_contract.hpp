// SPDX-License-Identifier: Apache-2.0
//
// What every transport promises (runtime/comm/channel.hpp), as claims that run on each of them. Included by exactly one
// file per test binary, after tests/test.hpp; that file defines make_fabric().
#pragma once

#include "tests/contract/fabric.hpp"
#include "tests/test.hpp"

namespace lockstep::test {

/// Limits of a wait that is expected to end well, and of one that must not end.
struct Waits {
  StopFlag stop;
  WaitLimits long_enough{&stop, std::chrono::milliseconds(60'000)};
  WaitLimits short_time{&stop, std::chrono::milliseconds(30)};
};

inline Message message_of(std::vector<at::Tensor> tensors, std::int64_t sequence = 0) {
  return {sequence, 3, std::move(tensors)};
}

inline Message receive_one(Channel& from, const WaitLimits& limits) {
  from.post();
  return from.receive(limits);
}

template <typename Exception, typename Body>
void expect_throws(const Body& body, const std::string& what) {
  try {
    body();
  } catch (const Exception&) {
    return;
  }
  throw std::runtime_error("expected an exception: " + what);
}

/// Sends the messages from worker 0 to worker 1 and compares what arrives.
inline void expect_arrives(Fabric& fabric, const std::function<std::vector<Message>()>& messages) {
  Waits waits;
  run_pair(
      fabric,
      [&] {
        for (Message& message : messages()) fabric.sender(0, 1, 0).send(std::move(message), waits.long_enough);
        fabric.sender(0, 1, 0).finish(waits.long_enough);
      },
      [&] {
        int i = 0;
        for (const Message& message : messages())
          expect_same(receive_one(fabric.receiver(0, 1, 0), waits.long_enough), message, concat("message ", i++));
      });
}

TEST_CASE("messages of one channel arrive in the order in which they were sent", "[contract]") {
  auto fabric = make_fabric();
  expect_arrives(*fabric, [] {
    std::vector<Message> messages;
    for (int i = 0; i < 200; ++i) messages.push_back(message_of({patterned({1 + i * i % 7000}, at::kFloat, 5)}, i));
    return messages;
  });
}

TEST_CASE("shapes and dtypes may change from message to message", "[contract]") {
  auto fabric =
      make_fabric({GENERATE(std::int64_t{1} << 30, std::int64_t{1024}, std::int64_t{100}), GENERATE(false, true)});
  expect_arrives(*fabric, [] {
    std::vector<Message> messages;
    messages.push_back(message_of({}));
    messages.push_back(message_of({at::Tensor()}));
    messages.push_back(message_of({patterned({}, at::kDouble, 1)}));
    messages.push_back(message_of({patterned({0}, at::kFloat, 1), patterned({3, 0, 2}, at::kBool, 1)}));
    messages.push_back(message_of({patterned({3, 1}, at::kBool, 1), at::Tensor(), patterned({5}, at::kLong, 2)}));
    messages.push_back(message_of({patterned({64, 33}, at::kBFloat16, 1), patterned({}, at::kLong, 1)}));
    messages.push_back(message_of({patterned({100, 300}, at::kFloat, 1), at::Tensor(), patterned({0}, at::kHalf, 2)}));
    messages.push_back(message_of({patterned({1021}, at::kFloat, 1)}));
    return messages;
  });
}

TEST_CASE("messages around the limits of a slot arrive whole", "[contract]") {
  auto fabric = make_fabric();
  expect_arrives(*fabric, [] {
    std::vector<Message> messages;
    for (int size = 3900; size <= 4100; size += 3)
      messages.push_back(message_of({patterned({size}, at::kByte, 9)}, size));
    return messages;
  });
}

TEST_CASE("a message may have many tensors of many dimensions", "[contract]") {
  auto fabric = make_fabric({GENERATE(std::int64_t{1} << 30, std::int64_t{1024}), false});
  const int tensors = GENERATE(250, 1000);
  const int elements = GENERATE(0, 1, 5);
  expect_arrives(*fabric, [=] {
    std::vector<at::Tensor> all;
    for (int i = 0; i < tensors; ++i)
      all.push_back(i % 7 == 3 ? at::Tensor()
                               : patterned({1, 1, 1, elements, 1, 1}, at::kFloat, static_cast<unsigned>(i)));
    std::vector<Message> messages{message_of(all), message_of({all[0]})};
    return messages;
  });
}

TEST_CASE("64 MiB arrive whole", "[contract]") {
  auto fabric = make_fabric();
  expect_arrives(*fabric, [] {
    std::vector<Message> messages;
    messages.push_back(message_of({patterned({16, 1 << 20}, at::kFloat, 3), patterned({7}, at::kByte, 4)}));
    return messages;
  });
}

TEST_CASE("a large send completes only after the receiver has posted", "[contract]") {
  // With synchronous sends (and in process) this holds for every size; otherwise MPI may buffer small ones.
  const bool large = GENERATE(true, false);
  auto fabric = make_fabric({std::int64_t{1} << 30, !large});
  Waits waits;
  run_pair(
      *fabric,
      [&] {
        Channel& out = fabric->sender(0, 1, 0);
        out.send(message_of({patterned({large ? 1 << 20 : 4}, at::kFloat, 1)}), waits.long_enough);
        expect_throws<WaitTimeout>([&] { out.finish(waits.short_time); }, "finish before the post times out");
        expect_throws<WaitTimeout>([&] { out.send(message_of({}), waits.short_time); }, "so does the next send");
        fabric->sender(0, 1, 1).send(message_of({}), waits.long_enough);  // go
        out.finish(waits.long_enough);
      },
      [&] {
        receive_one(fabric->receiver(0, 1, 1), waits.long_enough);
        Channel& in = fabric->receiver(0, 1, 0);
        in.post();
        expect(in.receive(waits.long_enough).tensors.size() == 1, "one tensor");
      });
}

TEST_CASE("a send completes after the post, although the receiver does not wait", "[contract]") {
  auto fabric = make_fabric();
  Waits waits;
  run_pair(
      *fabric,
      [&] {
        fabric->sender(0, 1, 0).send(message_of({patterned({1 << 20}, at::kFloat, 1)}), waits.long_enough);
        fabric->sender(0, 1, 0).finish(waits.long_enough);
        fabric->sender(0, 1, 1).send(message_of({}), waits.long_enough);
      },
      [&] {
        fabric->receiver(0, 1, 0).post();
        receive_one(fabric->receiver(0, 1, 1), waits.long_enough);  // only comes once the other one has completed
        expect_same(fabric->receiver(0, 1, 0).receive(waits.long_enough),
                    message_of({patterned({1 << 20}, at::kFloat, 1)}), "the message");
      });
}

TEST_CASE("the stop flag ends a wait soon", "[contract]") {
  auto fabric = make_fabric();
  Waits waits;
  run(*fabric, [&](int worker) {
    if (worker != 1) return;
    Channel& in = fabric->receiver(0, 1, 0);
    in.post();
    const auto start = std::chrono::steady_clock::now();
    std::thread stopper([&] { waits.stop.raise(); });
    try {
      expect_throws<JobStopped>([&] { in.receive(waits.long_enough); }, "receive ends with JobStopped");
    } catch (...) {
      stopper.join();
      throw;
    }
    stopper.join();
    expect(std::chrono::steady_clock::now() - start < std::chrono::seconds(5), "within 5 s");
  });
}

TEST_CASE("a wait ends with WaitTimeout, and may be repeated", "[contract]") {
  auto fabric = make_fabric();
  Waits waits;
  run_pair(
      *fabric,
      [&] {
        receive_one(fabric->receiver(1, 0, 0), waits.long_enough);  // the other one has timed out
        fabric->sender(0, 1, 0).send(message_of({}, 42), waits.long_enough);
      },
      [&] {
        Channel& in = fabric->receiver(0, 1, 0);
        in.post();
        expect_throws<WaitTimeout>([&] { in.receive(waits.short_time); }, "receive times out");
        fabric->sender(1, 0, 0).send(message_of({}), waits.long_enough);
        expect(in.receive(waits.long_enough).sequence == 42, "the message");
      });
}

TEST_CASE("a worker may send to itself", "[contract]") {
  auto fabric = make_fabric();
  Waits waits;
  run(*fabric, [&](int worker) {
    for (unsigned i = 0; i < 20; ++i) {
      Channel& in = fabric->receiver(worker, worker, 0);
      in.post();
      fabric->sender(worker, worker, 0).send(message_of({patterned({1 << i}, at::kByte, i)}, i), waits.long_enough);
      expect_same(in.receive(waits.long_enough), message_of({patterned({1 << i}, at::kByte, i)}, i), "own message");
    }
  });
}

TEST_CASE("random exchanges among all pairs, on several lanes, from several threads", "[contract]") {
  // Each worker does its part of one list in order: the worker that the first unfinished message needs is always at it.
  auto fabric = make_fabric({GENERATE(std::int64_t{1} << 30, std::int64_t{1024}), GENERATE(false, true)});
  const unsigned count = static_cast<unsigned>(fabric->workers() * 100);
  Waits waits;
  run(*fabric, [&](int worker) {
    std::mt19937 random(7);
    const auto below = [&random](int limit) { return static_cast<int>(random() % static_cast<unsigned>(limit)); };
    for (unsigned i = 0; i < count; ++i) {
      const int from = below(fabric->workers()), to = below(fabric->workers()), lane = below(Fabric::kLanes);
      if (worker == to) fabric->receiver(from, to, lane).post();
      if (worker == from) fabric->sender(from, to, lane).send(random_message(i), waits.long_enough);
      if (worker == to)
        expect_same(fabric->receiver(from, to, lane).receive(waits.long_enough), random_message(i),
                    concat("exchange ", i, ", worker ", from, " to ", to, " on lane ", lane));
    }
    for (int to = 0; to < fabric->workers(); ++to)
      for (int lane = 0; lane < Fabric::kLanes; ++lane) fabric->sender(worker, to, lane).finish(waits.long_enough);
  });
}

}  // namespace lockstep::test
