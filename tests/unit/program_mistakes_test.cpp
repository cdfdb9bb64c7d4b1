// SPDX-License-Identifier: Apache-2.0
//
// Every single mistake in a program is found, by the proof and by the oracle.
#include <algorithm>
#include <random>

#include "runtime/schedule/validate.hpp"
#include "tests/unit/program_oracle.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

using Row = std::vector<Instruction>;

Instruction take(Row& row, int position) {
  const Instruction taken = row[static_cast<std::size_t>(position)];
  row.erase(row.begin() + position);
  return taken;
}

Program random_program(std::mt19937& random) {
  const auto draw_from = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  const auto& generators = schedule_generators();
  const auto& generator = generators[static_cast<std::size_t>(draw_from(0, static_cast<int>(generators.size()) - 1))];
  const int virtual_stages = generator.virtual_stages.nearest(draw_from(1, 3));
  const int workers = draw_from(1, virtual_stages == 1 ? 5 : 3);
  const int micro_batches = generator.name == "dualpipev" ? 2 * workers + draw_from(0, 1) : draw_from(1, 6);
  const int stages = workers * virtual_stages;
  Topology topology = draw_from(0, 1) == 0 ? chain_topology(stages) : rich_topology(stages);
  const Mode mode = draw_from(0, 1) == 0 ? Mode::train : static_cast<Mode>(draw_from(0, kCount<Mode> - 1));
  const bool clip = draw_from(0, 1) == 1, post_validation = draw_from(0, 1) == 1;
  Schedule schedule = generator.make({workers, virtual_stages, micro_batches});
  std::vector<int> memories;
  if (draw_from(0, 1) == 1) {
    Replicas replicas;
    replicas.count = draw_from(1, 3);
    replicas.groups = replicas.count + draw_from(0, 1);
    replicas.micro_batches = std::max(1, micro_batches * replicas.count / 2 + 1);  // the one with most has no more
    replicas.groups = std::min(replicas.groups, replicas.micro_batches);
    replicas.count = std::min(replicas.count, replicas.groups);
    replicas.shard_optimizer = draw_from(0, 1) == 1;
    topology = with_replicas(topology, replicas);
    schedule = replicated(schedule, replicas, replicas.micro_batches);
    for (int row = 0; row < schedule.workers(); ++row) memories.push_back(draw_from(0, 2));
  }
  return lower(schedule, topology, wiring_of(schedule, topology, memories), {mode, clip, post_validation});
}

/// A move that only passes instructions of its own kind (a receive past other receives) may be as good, and a W that is
/// moved to where no message stands makes the program of another schedule.
bool may_move(const Program& good, const Program& moved, const Row& row, std::size_t from, std::size_t to);

bool passes_only_its_kind(const Row& row, std::size_t from, std::size_t to) {
  for (std::size_t i = std::min(from, to); i <= std::max(from, to); ++i) {
    if (row[i].kind != row[from].kind) return false;
  }
  return true;
}

bool may_move(const Program& good, const Program& moved, const Row& row, std::size_t from, std::size_t to) {
  if (passes_only_its_kind(row, from, to)) return true;
  if (row[from].kind != InstructionKind::compute || row[from].action.op != Op::weight_grad) return false;
  return rows_of(good, schedule_of(moved)) == moved.rows;
}

}  // namespace

TEST_CASE("dropping, doubling or moving any one instruction of a program is found", "[unit]") {
  std::mt19937 random(7);
  for (int round = 0; round < 40; ++round) {
    const Program good = random_program(random);
    CAPTURE(good.name);
    REQUIRE(text_of(validate(good)).empty());
    REQUIRE(text_of(oracle(good)).empty());
    Program bad = good;
    for (std::size_t row = 0; row < good.rows.size(); ++row) {
      for (std::size_t i = 0; i < good.rows[row].size(); ++i) {
        const std::string what = describe(good, good.rows[row][i]);
        CAPTURE(row, i, what);
        Row& changed = bad.rows[row];
        const Instruction taken = take(changed, static_cast<int>(i));
        if (validate(bad).empty() || oracle(bad).empty()) FAIL("dropped");
        const std::size_t to = std::uniform_int_distribution<std::size_t>(0, changed.size())(random);
        changed.insert(changed.begin() + static_cast<std::ptrdiff_t>(to), taken);
        if ((validate(bad).empty() || oracle(bad).empty()) && !may_move(good, bad, good.rows[row], i, to))
          FAIL("moved to " << to);
        changed = good.rows[row];
        changed.insert(changed.begin() + static_cast<std::ptrdiff_t>(to), taken);
        if (validate(bad).empty() || oracle(bad).empty()) FAIL("doubled at " << to);
        changed = good.rows[row];
      }
    }
  }
}
