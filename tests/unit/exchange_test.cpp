// SPDX-License-Identifier: Apache-2.0
//
// The table of exchanges, and what a further line in it takes: a vote of all rows at the end of a program, from the
// line to a run in threads; shared parameters that are summed while the pipeline drains.
#include "runtime/schedule/exchange.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "runtime/schedule/schedule_text.hpp"
#include "runtime/schedule/simulation.hpp"
#include "runtime/schedule/validate.hpp"
#include "tests/unit/program_oracle.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

using Kind = InstructionKind;

/// A line per exchange, as in exchange.hpp.
std::string table_text(const Program& program) {
  std::ostringstream out;
  for (const Exchange& exchange : program.exchanges) {
    out << to_string(exchange.kind);
    if (exchange.item >= 0) out << ' ' << exchange.item;
    out << ": " << join(exchange.from, " ") << " -> " << (exchange.to.empty() ? "-" : join(exchange.to, " "));
    for (const Phase& phase : exchange.phases) out << "; " << to_string(phase.place) << ' ' << to_string(phase.what);
    out << '\n';
  }
  return out.str();
}

void lower_again(Program& program) {
  program.edges = wire(program.exchanges);
  program.rows = rows_of(program, schedule_of(program));
}

/// Runs the rows of a program in threads, under the blocking semantics of program.hpp. A message is a character.
class Threads {
 public:
  std::function<char(const Edge&)> give = [](const Edge&) { return '\0'; };
  std::function<void(const Edge&, char)> take = [](const Edge&, char) {};

  /// Whether every row comes to its end.
  bool run(const Program& program) {
    edges_.assign(program.edges.size(), {});
    std::atomic<int> done{0};
    std::vector<std::thread> threads;
    for (const std::vector<Instruction>& row : program.rows)
      threads.emplace_back([&] {
        done +=
            std::all_of(row.begin(), row.end(), [&](const Instruction& what) { return execute(program, row, what); });
      });
    for (std::thread& thread : threads) thread.join();
    return done == program.workers();
  }

 private:
  struct State {
    int posted = 0, sent = 0, received = 0;
    std::deque<char> under_way = {};
  };

  bool execute(const Program& program, const std::vector<Instruction>& row, const Instruction& what) {
    std::unique_lock lock(mutex_);
    const auto wait = [&](const auto& ready) { return changed_.wait_for(lock, std::chrono::seconds(20), ready); };
    if (what.kind == Kind::wait_sends)
      return std::all_of(row.begin(), row.end(), [&](const Instruction& other) {
        return other.kind != Kind::send || wait([&] { return at(other).sent <= at(other).posted; });
      });
    if (!is_message(what.kind)) return true;
    State& edge = at(what);
    const Edge& ends = program.edges[index(what.edge)];
    if (what.kind == Kind::post) {
      ++edge.posted;
    } else if (what.kind == Kind::send) {
      if (!wait([&] { return edge.sent <= edge.posted; })) return false;
      ++edge.sent;
      edge.under_way.push_back(give(ends));
    } else {
      if (!wait([&] { return std::min(edge.posted, edge.sent) > edge.received; })) return false;
      ++edge.received;
      take(ends, edge.under_way.front());
      edge.under_way.pop_front();
    }
    changed_.notify_all();
    return true;
  }
  State& at(const Instruction& message) { return edges_[index(message.edge)]; }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<State> edges_;
};

// ---- the vote: what a new exchange costs ----

constexpr int kVote = 1;  // the second exchange of its kinds: collected at row 0, and row 0's answer

void add_vote(Program& program) {
  const std::vector<WorkerId> row_0 = {WorkerId(0)};
  std::vector<WorkerId> others;
  for (int row = 1; row < program.workers(); ++row) others.emplace_back(row);
  const std::vector<Phase> phases = {{Kind::send, Place::end}, {Kind::post, Place::end}, {Kind::receive, Place::end}};
  program.exchanges.push_back({EdgeKind::norm, kVote, others, row_0, {}, {}, 1, phases});
  program.exchanges.push_back({EdgeKind::scale, kVote, row_0, others, {}, {}, 1, phases});
  lower_again(program);
}

/// What each row is told when they vote like this.
std::string vote(const Program& program, const std::string& votes) {
  std::string told(votes.size(), votes[0]);
  Threads threads;
  threads.give = [&](const Edge& edge) {
    return edge.item != kVote ? '\0' : edge.kind == EdgeKind::norm ? votes[index(edge.from)] : told[0];
  };
  threads.take = [&](const Edge& edge, char byte) {
    if (edge.item == kVote && edge.kind == EdgeKind::norm && byte == 'n') told[0] = byte;
    if (edge.item == kVote && edge.kind == EdgeKind::scale) told[index(edge.to)] = byte;
  };
  REQUIRE(threads.run(program));
  return told;
}

}  // namespace

TEST_CASE("the table of a training step is the golden one", "[unit]") {
  check_golden("exchanges_1f1b_3x2_train.txt",
               table_text(lower(make_schedule("1f1b", {3, 1, 2}), rich_topology(3), {Mode::train, true})));
}

TEST_CASE("all programs of a job have the same exchanges, with other phases", "[unit]") {
  const Schedule schedule = make_schedule("1f1b", {3, 1, 2});
  const auto names = [&](const LowerOptions& options) {
    std::string text;
    for (const Exchange& exchange : lower(schedule, rich_topology(3), options).exchanges)
      text += concat(to_string(exchange.kind), exchange.item, " ");
    return text;
  };
  const std::string trained = names({Mode::train, true, true});
  for (int mode = 0; mode < kCount<Mode>; ++mode) CHECK(names({static_cast<Mode>(mode), false}) == trained);
}

TEST_CASE("a phase that any line of the table lacks is found by the oracle", "[unit]") {
  for (const bool post_validation : {false, true}) {
    const Program good =
        lower(make_schedule("1f1b", {3, 1, 2}), rich_topology(3), {Mode::train, true, post_validation});
    REQUIRE(text_of(oracle(good)).empty());
    for (std::size_t line = 0; line < good.exchanges.size(); ++line) {
      for (std::size_t i = 0; i < good.exchanges[line].phases.size(); ++i) {
        Program bad = good;
        std::vector<Phase>& phases = bad.exchanges[line].phases;
        CAPTURE(line, to_string(bad.exchanges[line].kind), to_string(phases[i].what));
        phases.erase(phases.begin() + static_cast<std::ptrdiff_t>(i));
        lower_again(bad);
        CHECK_FALSE(oracle(bad).empty());
      }
    }
  }
}

TEST_CASE("a further exchange, a vote of all rows, is lowered, proved, simulated and run", "[unit]") {
  for (const ScheduleGenerator& generator : schedule_generators()) {
    const Schedule schedule = make_schedule(generator.name, {3, generator.virtual_stages.least, 6});
    for (const Mode mode : {Mode::train, Mode::evaluate, Mode::flush}) {
      Program program = lower(schedule, rich_topology(schedule.stages), {mode, true});
      const Costs costs = [&] {
        Costs latency = equal_costs(schedule.stages, 0, 0, 0);
        latency.links.same_host.latency_us = 1;
        return latency;
      }();
      const double without_us = simulate(program, costs).step_us;
      add_vote(program);
      CAPTURE(program.name);
      CHECK(text_of(validate(program)).empty());
      CHECK(simulate(program, costs).step_us >= without_us + 1);
      CHECK(vote(program, "yyy") == "yyy");
      CHECK(vote(program, "yny") == "nnn");
      program.rows[1].erase(program.rows[1].begin() + position_of(program, 1, "post scale 1 (row 0 -> 1)"));
      CHECK(contains(text_of(validate(program)), "expected post scale 1 (row 0 -> 1)"));
    }
  }
}

TEST_CASE("shared parameters may be summed while the pipeline drains: a phase behind the last W of their stage",
          "[unit]") {
  // 0F0 0F1 2F0 2F1 2B0 2B1 0B0 0B1 | 1F0 1F1 3F0 3F1 3B0 3B1 1B0 1B1: the gradients of 2 and 3 are there long before
  // 0's.
  const Schedule schedule = make_schedule("looped_bfs", {2, 2, 2});
  Topology topology = chain_topology(4);
  topology.shared.push_back({{StageId(2), StageId(3)}});
  Costs costs = equal_costs(4, 10, 10, 10);
  costs.shared_bytes = {35};
  costs.links.same_host.bytes_per_us = 1;
  Program program = lower(schedule, topology, {});
  const double behind_all_us = simulate(program, costs).step_us;
  for (Exchange& exchange : program.exchanges)
    for (Phase& phase : exchange.phases)
      if (exchange.kind == EdgeKind::shared && (phase.what == Kind::post || phase.what == Kind::send))
        phase.place = Place::last_weight_grad;
  lower_again(program);
  CHECK(text_of(validate(program)).empty());
  for (const int row : {0, 1}) {
    const std::string send = concat("send shared 0 (row ", row, " -> ", 1 - row, ")");
    CHECK(position_of(program, row, send) > position_of(program, row, concat(row + 2, "B1")));
    CHECK(position_of(program, row, send) < position_of(program, row, concat(row, "B0")));
    CHECK(position_of(program, row, "shared_sum 0") > position_of(program, row, concat(row, "B1")));
  }
  CHECK(simulate(program, costs).step_us <= behind_all_us - 35);
  CHECK(Threads().run(program));
}
