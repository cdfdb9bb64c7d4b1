// SPDX-License-Identifier: Apache-2.0
//
// Replicas without tensors: the order of sums, who has which micro-batches and which elements, and programs.
#include "runtime/schedule/replicas.hpp"

#include <limits>
#include <numeric>
#include <set>

#include "runtime/base/tree_sum.hpp"
#include "runtime/schedule/bucket_work.hpp"
#include "runtime/schedule/programs.hpp"
#include "runtime/schedule/simulation.hpp"
#include "runtime/schedule/validate.hpp"
#include "tests/unit/program_oracle.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

using Sums = TreeSum<std::string>;

std::string plus(const std::string& left, const std::string& right) {
  return concat("(", left, "+", right, ")");
}

constexpr TermRange kAll{0, std::numeric_limits<int>::max()};

/// The definition: a node is the sum of its halves, a missing half is no term. Numbers [begin, begin + size).
std::string tree(const std::set<int>& present, int begin, int size) {
  if (size == 1) return present.contains(begin) ? std::to_string(begin) : "";
  const std::string left = tree(present, begin, size / 2), right = tree(present, begin + size / 2, size / 2);
  return left.empty() ? right : right.empty() ? left : plus(left, right);
}

std::string text(const Sums::Node& node) {
  return concat(node.first, ":", node.sum);
}

Replicas replicas_of(int count, int groups, int micro_batches) {
  Replicas replicas;
  replicas.count = count;
  replicas.groups = groups;
  replicas.micro_batches = micro_batches;
  return replicas;
}

}  // namespace

TEST_CASE("sums of groups are those of a balanced tree, whichever terms are missing", "[unit]") {
  for (unsigned mask = 1; mask < 1u << 9; ++mask) {
    Sums sums;
    std::set<int> present;
    std::size_t most = 0;
    for (int term = 0; term < 9; ++term) {
      if ((mask >> term & 1u) == 0) continue;
      present.insert(term);
      sums.push(term, std::to_string(term), kAll, plus);
      most = std::max(most, sums.nodes().size());
    }
    const std::vector<Sums::Node> whole = sums.finish(kAll, plus);
    REQUIRE(whole.size() == 1);
    CHECK(whole[0].sum == tree(present, 0, 16));
    CHECK(most <= 5);
  }
  CHECK(Sums().finish(kAll, plus).empty());
}

TEST_CASE("whoever has a run of groups adds up the subtrees in it, and all of them together make the whole", "[unit]") {
  for (int groups = 1; groups <= 12; ++groups)
    for (int count = 1; count <= groups; ++count)
      for (unsigned missing = 0; missing < 8; ++missing) {
        const Replicas replicas = replicas_of(count, groups, groups);
        std::set<int> present;
        Sums all;
        for (int replica = 0; replica < count; ++replica) {
          const TermRange mine = replicas.groups_of(replica);
          Sums own;
          for (int group = mine.begin; group < std::min(mine.end, groups); ++group) {
            if (missing > 0 && group % 8 == static_cast<int>(missing)) continue;
            present.insert(group);
            own.push(group, std::to_string(group), mine, plus);
          }
          const std::vector<Sums::Node> left = own.finish(mine, plus);
          if (missing == 0) CHECK(static_cast<int>(left.size()) == replicas.sums_of(replica));
          for (const Sums::Node& node : left) all.push(node.first, node.sum, kAll, plus);
        }
        INFO(count << " replicas, " << groups << " groups, without " << missing);
        CHECK(all.finish(kAll, plus).at(0).sum == tree(present, 0, 16));
      }
  // Three replicas, four groups: 2, 1, 1.
  Sums first;
  const TermRange mine = replicas_of(3, 4, 4).groups_of(0);
  for (int group : {0, 1}) first.push(group, std::to_string(group), mine, plus);
  CHECK(text(first.finish(mine, plus).at(0)) == "0:(0+1)");
  // Groups 1 and 2 have no subtree of their own.
  Sums middle;
  for (int group : {1, 2}) middle.push(group, std::to_string(group), {1, 3}, plus);
  CHECK(middle.finish({1, 3}, plus).size() == 2);
}

TEST_CASE("each micro-batch is in one group, each group in one replica, all in order", "[unit]") {
  for (int micro_batches = 1; micro_batches <= 13; ++micro_batches)
    for (int groups = 1; groups <= micro_batches; ++groups)
      for (int count = 1; count <= groups; ++count) {
        const Replicas replicas = replicas_of(count, groups, micro_batches);
        INFO(count << " " << groups << " " << micro_batches);
        for (int of = 0; of <= micro_batches; ++of) {
          int next = 0;
          for (int replica = 0; replica < count; ++replica) {
            const TermRange run = replicas.micro_batches_of(replica, of);
            REQUIRE(run.begin == next);
            REQUIRE(run.end >= run.begin);
            if (of == micro_batches) REQUIRE(run.end > run.begin);
            for (int m = run.begin; m < run.end; ++m) {
              REQUIRE(replicas.replica_of(m) == replica);
              REQUIRE(replicas.group_of(m) == m * groups / micro_batches);
              REQUIRE(replicas.groups_of(replica).begin <= replicas.group_of(m));
              REQUIRE(replicas.group_of(m) < replicas.groups_of(replica).end);
            }
            next = run.end;
          }
          REQUIRE(next == of);
        }
      }
}

TEST_CASE("a bucket is divided at blocks, evenly, at parameters where that is even enough", "[unit]") {
  const auto sizes = [](const Blocks& blocks, int parts, bool whole = false) {
    std::vector<std::int64_t> found;
    int next = 0;
    for (const TermRange& share : blocks.divided(parts, whole)) {
      CHECK(share.begin == next);
      next = share.end;
      found.push_back(blocks.elements(share));
    }
    CHECK(next == blocks.count());
    CHECK(std::accumulate(found.begin(), found.end(), std::int64_t{0}) == blocks.elements());
    return found;
  };
  using List = std::vector<std::int64_t>;
  const Blocks alike(std::vector<Divided>(8, 1000));
  CHECK(sizes(alike, 2) == List{4000, 4000});
  CHECK(sizes(alike, 3) == List{3000, 2000, 3000});
  CHECK(sizes(alike, 9).size() == 9);
  const Blocks large({10 * kNormBlock + 7, 100});
  CHECK(sizes(large, 2) == List{5 * kNormBlock, 5 * kNormBlock + 107});
  CHECK(sizes(large, 2, /*whole=*/true) == List{10 * kNormBlock + 7, 100});
  CHECK(sizes(large, 1) == List{large.elements()});
  CHECK(sizes(Blocks(), 3) == List{0, 0, 0});
  const std::vector<Slice> slices = large.slices({9, 12});
  CHECK(slices == std::vector<Slice>{{0, 9 * kNormBlock, 10 * kNormBlock + 7}, {1, 0, 100}});
  // A sparse table is one block, and counts by the rows that a mini-batch uses.
  const Blocks sparse({Divided::sparse(100 * kNormBlock, 5000), 3000, Divided::sparse(64, 2000)});
  CHECK(sparse.count() == 3);
  CHECK(sizes(sparse, 2) == List{5000, 5000});
  CHECK(sparse.slices({0, 1}) == std::vector<Slice>{{0, 0, 100 * kNormBlock}});
  CHECK(sparse.stored({1, 3}) == 3064);
  // A table that is divided by rows, of 48 here.
  const Blocks rows(std::vector<Divided>{{1000, 48 * 5}});
  CHECK(rows.slices(rows.divided(2)[1]) == std::vector<Slice>{{0, 480, 1000}});
  // Of a large parameter among many no share is more than 5 % off.
  const Blocks mixed({40 * kNormBlock, 3000, 17 * kNormBlock + 5, 12, 30 * kNormBlock});
  for (const std::int64_t size : sizes(mixed, 4))
    CHECK(static_cast<double>(size) <= 1.05 * static_cast<double>(mixed.elements()) / 4);
}

TEST_CASE("programs of replicas are right: proof and oracle agree, for every schedule, memory and batch", "[unit]") {
  const std::vector<std::vector<int>> memories_of_replica = {{0, 1, 2, 3}, {0, 0, 0, 0}, {0, 0, 1, 1}, {0, 1, 1, 1}};
  int programs = 0;
  for (const ScheduleGenerator& generator : schedule_generators())
    for (int workers = 1; workers <= 2; ++workers) {
      const int virtual_stages = generator.virtual_stages.least;
      const ScheduleShape shape{workers, virtual_stages, 4};
      if (!is_legal(generator, shape)) continue;
      const int stages = workers * virtual_stages;
      for (int count = 1; count <= 4; ++count)
        for (const std::vector<int>& memories : memories_of_replica)
          for (const bool shards : {false, true})
            for (const bool rich : {false, true}) {
              Replicas replicas = replicas_of(count, std::max(count, 3), 4 * count);
              replicas.shard_optimizer = shards;
              const Topology topology = with_replicas(rich ? rich_topology(stages) : chain_topology(stages), replicas);
              std::vector<int> memory_of_row;
              for (int replica = 0; replica < count; ++replica)
                for (int row = 0; row < workers; ++row)
                  memory_of_row.push_back(memories[static_cast<std::size_t>(replica)] * 10 + row);
              LowerOptions options;
              options.clip = rich;
              options.post_validation = shards;
              // Uneven: a replica of three groups has more micro-batches than another.
              Schedule most = generator.make({workers, virtual_stages, 6});
              if (generator.name == "dualpipev") most = generator.make({workers, virtual_stages, 8});
              Programs all(most, topology, options, Order::ascending, memory_of_row);
              INFO(generator.name << ", " << workers << " workers, " << count << " replicas, memories "
                                  << join(memory_of_row) << ", shards " << shards << ", rich " << rich);
              for (const auto& [mode, micro_batches] :
                   {std::pair(Mode::train, 4 * count), std::pair(Mode::train, 1), std::pair(Mode::train, 4 * count - 1),
                    std::pair(Mode::evaluate, 3), std::pair(Mode::flush, 0), std::pair(Mode::stop, 0)}) {
                const Program& program = all.get(mode, micro_batches);  // proved
                CHECK(text_of(oracle(program)).empty());
                ++programs;
              }
              CHECK(simulate(all.get(Mode::train, 4 * count), equal_costs(topology.stages, 1, 1, 1)).step_us > 0);
            }
    }
  CHECK(programs > 2000);
}

TEST_CASE("without replicas and groups a program is as it was", "[unit]") {
  const Schedule schedule = make_schedule("1f1b", {3, 1, 4});
  const Topology topology = rich_topology(3);
  CHECK(lower(schedule, topology, {Mode::train, true}).rows ==
        lower(schedule, with_replicas(topology, {}), {Mode::train, true}).rows);
  const Program groups = lower(schedule, with_replicas(topology, replicas_of(1, 4, 4)), {Mode::train, true});
  const auto reductions = [&](int row) {
    const auto& instructions = groups.rows[static_cast<std::size_t>(row)];
    return std::count_if(instructions.begin(), instructions.end(),
                         [](const Instruction& instruction) { return instruction.kind == InstructionKind::reduce; });
  };
  CHECK(reductions(0) == 2);  // its own, and its holder of the tie
  CHECK(reductions(1) == 0);  // nothing is trained there
  CHECK(groups.edges.size() == lower(schedule, topology, {Mode::train, true}).edges.size());
}

TEST_CASE("who shares a memory updates a part of it, who is alone all of it, and gets the sums for that", "[unit]") {
  const auto work = [](bool shards, std::vector<int> memories) {
    Replicas replicas = replicas_of(4, 4, 4);
    replicas.shard_optimizer = shards;
    const Topology topology = with_replicas(chain_topology(1), replicas);
    const Schedule schedule = replicated(make_schedule("gpipe", {1, 1, 1}), replicas, 4);
    return work_on(topology.buckets[0], topology, wiring_of(schedule, topology, std::move(memories)));
  };
  const BucketWork apart = work(false, {0, 1, 2, 3});
  CHECK(apart.updates == std::vector<TermRange>(4, TermRange{0, 7}));
  CHECK(apart.sends_of_gradients().size() == 12);
  CHECK(apart.sends_of_word().empty());
  const BucketWork together = work(false, {5, 5, 5, 5});
  CHECK(together.updates == together.sums);
  CHECK(together.sends_of_word().size() == 12);
  const BucketWork pairs = work(false, {0, 0, 1, 1});
  CHECK(pairs.updates[0] == pairs.updates[2]);
  CHECK(pairs.updates[0].end == pairs.updates[1].begin);
  CHECK(pairs.sends_of_word().size() == 4);
  const BucketWork sharded = work(true, {0, 0, 1, 1});
  CHECK(sharded.updates == sharded.sums);
  CHECK(sharded.sends_of_weights().size() == 4);  // each to one row of the other memory
}

TEST_CASE("an action of another replica's micro-batch is a finding", "[unit]") {
  const Replicas replicas = replicas_of(2, 2, 4);
  const Topology topology = with_replicas(chain_topology(1), replicas);
  Schedule schedule = replicated(make_schedule("gpipe", {1, 1, 2}), replicas, 4);
  schedule.rows[0].push_back({StageId(0), Op::forward, 3});
  const Program bad = lower(schedule, topology, {});
  CHECK(contains(text_of(validate(bad)), "stray: 0F3: the micro-batches of replica 0 are 0 to 1"));
}
