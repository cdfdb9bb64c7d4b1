// SPDX-License-Identifier: Apache-2.0
//
// The protocol of workers and servers (update_gate.hpp, share_book.hpp), in every order in which messages can come.
#include <deque>
#include <set>

#include "runtime/schedule/share_book.hpp"
#include "runtime/schedule/update_gate.hpp"
#include "tests/test.hpp"

using namespace lockstep;

namespace {

using Let = UpdateGate::Let;
using What = UpdateGate::What;

struct Request {
  enum Kind { read, update, settle, leave } kind = read;
  Share share;
  auto operator<=>(const Request&) const = default;
};

struct Worker {
  enum Phase { asking, reading, computing, updating, settling, leaving, gone } phase = asking;
  Share share;
  int missing = 0;                        // replies
  std::vector<std::deque<Request>> sent;  // by server
  std::vector<std::deque<Let>> replies;
  auto operator<=>(const Worker&) const = default;
};

struct Server {
  UpdateGate gate;
  std::map<Share, int> made;  // updates, or with K = 0 contributions
  auto operator<=>(const Server&) const = default;
};

struct State {
  ShareBook book;
  std::vector<Server> servers;
  std::vector<Worker> workers;
  int failures = 0;  // that may still happen
  auto operator<=>(const State&) const = default;
};

struct Case {
  int max_staleness = 1, workers = 2, shares = 2, steps = 2, failures = 0, servers = 2;
};

class Exploration {
 public:
  explicit Exploration(const Case& of) : case_(of) {
    const UpdateGate gate(of.max_staleness, of.shares);
    State first{ShareBook(of.max_staleness == 0 ? of.workers : of.max_staleness + 1, of.max_staleness == 0),
                std::vector<Server>(static_cast<std::size_t>(of.servers), Server{gate, {}}),
                std::vector<Worker>(static_cast<std::size_t>(of.workers)), of.failures};
    for (Worker& worker : first.workers) {
      worker.sent.resize(first.servers.size());
      worker.replies.resize(first.servers.size());
    }
    for (int step = 1; step <= of.steps; ++step) first.book.open(step, of.shares);
    look_at(first);
    while (!to_do_.empty()) {
      const State state = *to_do_.back();
      to_do_.pop_back();
      follow(state);
    }
  }

  std::size_t states() const { return seen_.size(); }
  std::int64_t ends() const { return ends_; }
  std::int64_t most_stale() const { return most_stale_; }

 private:
  void look_at(State state) {
    const auto [at, is_new] = seen_.insert(std::move(state));
    if (is_new) to_do_.push_back(&*at);
  }

  /// All that can happen next.
  void follow(const State& state) {
    bool moved = false;
    const auto then = [&](auto change) {
      State next = state;
      change(next);
      look_at(std::move(next));
      moved = true;
    };
    for (std::size_t w = 0; w < state.workers.size(); ++w) {
      const Worker& worker = state.workers[w];
      const int id = static_cast<int>(w);
      if (worker.phase == Worker::asking) {
        ShareBook asked = state.book;
        if (asked.take(id))
          then([&](State& next) { take(next, id); });
        else if (state.book.is_idle())
          then([&](State& next) { leave(next, id); });
      }
      if (worker.phase == Worker::computing)
        then([&](State& next) { send(next, id, Worker::updating, Request::update); });
      const bool can_fail = worker.phase == Worker::reading || worker.phase == Worker::computing ||
                            worker.phase == Worker::updating || worker.phase == Worker::settling;
      if (can_fail && state.failures > 0)
        then([&](State& next) {
          --next.failures;
          leave(next, id);
        });
      for (std::size_t s = 0; s < state.servers.size(); ++s) {
        if (!worker.sent[s].empty()) then([&](State& next) { serve(next, id, s); });
        if (!worker.replies[s].empty()) then([&](State& next) { reply(next, id, s); });
      }
    }
    if (!moved) check_end(state);
  }

  static void send(State& next, int w, Worker::Phase phase, Request::Kind kind) {
    Worker& worker = next.workers[static_cast<std::size_t>(w)];
    worker.phase = phase;
    worker.missing = static_cast<int>(next.servers.size());
    for (std::deque<Request>& queue : worker.sent) queue.push_back({kind, worker.share});
  }

  static void take(State& next, int w) {
    const Share share = next.workers[static_cast<std::size_t>(w)].share = *next.book.take(w);
    if (share.share == Share::kSettle)
      send(next, w, Worker::settling, Request::settle);
    else
      send(next, w, Worker::reading, Request::read);
  }

  static void leave(State& next, int w) { send(next, w, Worker::leaving, Request::leave); }

  void serve(State& next, int w, std::size_t s) {
    Worker& worker = next.workers[static_cast<std::size_t>(w)];
    const Request request = worker.sent[s].front();
    worker.sent[s].pop_front();
    auto& [gate, made] = next.servers[s];
    const auto [step, share] = request.share;
    std::vector<Let> lets;
    switch (request.kind) {
      case Request::read:
        if (case_.max_staleness == 0 && gate.version() != step - 1 && worker.phase == Worker::reading)
          FAIL("a read of another step's weights");
        lets = gate.read(w);
        break;
      case Request::update: lets = gate.update(w, step, share); break;
      case Request::settle: lets = gate.settle(w, step); break;
      case Request::leave: lets = gate.leave(w); break;
    }
    for (const Let& let : lets) {
      Worker& to = next.workers[static_cast<std::size_t>(let.worker)];
      if (let.what == What::update && let.makes) ++made[to.share];
      most_stale_ = std::max(most_stale_, let.staleness);
      to.replies[s].push_back(let);
    }
  }

  void reply(State& next, int w, std::size_t s) {
    Worker& worker = next.workers[static_cast<std::size_t>(w)];
    const What what = worker.replies[s].front().what;
    worker.replies[s].pop_front();
    const bool left = worker.phase == Worker::leaving || worker.phase == Worker::gone;
    if (left && what != What::leave) return;  // of what it has given up
    if (--worker.missing > 0) return;
    if (worker.phase == Worker::leaving) {
      worker.phase = Worker::gone;
      next.book.leave(w);
    } else if (worker.phase == Worker::reading) {
      worker.phase = Worker::computing;
    } else {
      worker.phase = Worker::asking;
      next.book.done(w);
    }
  }

  void check_end(const State& state) {
    ++ends_;
    const bool some_left = state.failures > case_.failures - case_.workers;
    const bool all_gone = std::all_of(state.workers.begin(), state.workers.end(),
                                      [](const Worker& worker) { return worker.phase == Worker::gone; });
    if (!all_gone) FAIL("nobody can go on, and some worker is not done");
    if (!some_left) return;
    if (!state.book.is_idle()) FAIL("shares are left");
    const std::int64_t updates = case_.max_staleness == 0 ? case_.steps : case_.steps * case_.shares;
    for (const auto& [gate, made] : state.servers) {
      if (gate.version() != updates) FAIL("a server of version " << gate.version() << " in the end");
      if (static_cast<int>(made.size()) != case_.steps * case_.shares) FAIL("an update was lost");
      for (const auto& [share, times] : made)
        if (times != 1) FAIL("share " << share.share << " of step " << share.step << " was made " << times << " times");
    }
  }

  Case case_;
  std::set<State> seen_;
  std::vector<const State*> to_do_;
  std::int64_t ends_ = 0, most_stale_ = 0;
};

}  // namespace

TEST_CASE("no order of messages ends in a deadlock, loses an update, or breaks the bound of staleness",
          "[unit][search]") {
  for (const Case& of :
       {Case{0, 2, 2, 3}, Case{1, 2, 2, 2}, Case{2, 2, 2, 2}, Case{4, 2, 2, 2}, Case{0, 2, 3, 2}, Case{1, 2, 3, 1},
        Case{2, 3, 4, 1, 0, 1}, Case{0, 2, 2, 2, 1}, Case{1, 2, 3, 1, 1}, Case{2, 2, 2, 1, 2}}) {
    const Exploration all(of);
    INFO("staleness " << of.max_staleness << ", " << of.workers << " workers, " << of.steps << " steps of " << of.shares
                      << " shares, " << of.failures << " failures: " << all.states() << " states");
    CHECK(all.ends() > 0);
    CHECK(all.states() > 100);
    CHECK(all.most_stale() <= of.max_staleness);
    if (of.max_staleness == 1) CHECK(all.most_stale() == 1);
  }
}
