// SPDX-License-Identifier: Apache-2.0
//
// The validator must be able to fail: one broken schedule or program per rule, and a sweep over every single mistake.
#include "runtime/schedule/validate.hpp"

#include <algorithm>
#include <random>

#include "runtime/schedule/schedule_text.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

using Row = std::vector<Instruction>;

bool names(const std::vector<Finding>& findings, const std::string& rule, int worker, const std::string& part) {
  return std::any_of(findings.begin(), findings.end(), [&](const Finding& finding) {
    return finding.rule == rule && (worker < 0 || finding.worker.value() == worker) && contains(finding.message, part);
  });
}

#define CHECK_NAMED(subject, rule, worker, part)          \
  do {                                                    \
    const std::vector<Finding> found = validate(subject); \
    INFO(text_of(found));                                 \
    CHECK(names(found, rule, worker, part));              \
  } while (false)

Row& row_of(Program& program, int row) {
  return program.rows.at(static_cast<std::size_t>(row));
}

Instruction& at(Program& program, int row, const std::string& text) {
  return row_of(program, row)[static_cast<std::size_t>(position_of(program, row, text))];
}

Instruction take(Row& row, int position) {
  const Instruction taken = row[static_cast<std::size_t>(position)];
  row.erase(row.begin() + position);
  return taken;
}

/// Moves the instruction called `text` in front of the one called `before`.
void move_before(Program& program, int row, const std::string& text, const std::string& before) {
  const Instruction moved = take(row_of(program, row), position_of(program, row, text));
  row_of(program, row).insert(row_of(program, row).begin() + position_of(program, row, before), moved);
}

Program tied(bool clip = true) {
  return lower(make_schedule("1f1b", {3, 1, 3}), rich_topology(3), {Mode::train, clip});
}

}  // namespace

// ---- schedules ----

TEST_CASE("each rule of a schedule is named when it is broken", "[unit]") {
  const Schedule good = make_schedule("1f1b", {2, 1, 2});  // 0F0 0F1 0B0 0B1 | 1F0 1B0 1F1 1B1
  REQUIRE(validate(good).empty());
  Schedule bad = good;

  SECTION("range") {
    bad.rows[1][2].micro_batch = 2;
    CHECK_NAMED(bad, "range", 1, "1F2: micro-batches are 0 to 1");
    bad = good;
    bad.rows[1][2].stage = StageId(5);
    CHECK_NAMED(bad, "range", 1, "5F1: stages are 0 to 1");
    bad.stages = 0;
    CHECK_NAMED(bad, "range", -1, "0 stages");
  }
  SECTION("row") {
    bad.rows[0].pop_back();
    bad.rows[1].push_back(parse_action("0B1"));
    CHECK_NAMED(bad, "row", 1, "0B1 is on worker 1, but stage 0 belongs to worker 0");
  }
  SECTION("empty") {
    bad.rows.emplace_back();
    CHECK_NAMED(bad, "empty", 2, "worker 2 has no actions");
  }
  SECTION("missing") {
    bad.rows[0].pop_back();
    CHECK_NAMED(bad, "missing", -1, "0B1 is on no worker");
    bad.rows[0].push_back(parse_action("0I1"));
    CHECK_NAMED(bad, "missing", -1, "0W1 is on no worker");
    bad.stages = bad.micro_batches = 1 << 20;  // one finding, not 2^40
    CHECK_NAMED(bad, "missing", -1, "1048576 stages x 1048576 micro-batches, but only 8 actions");
  }
  SECTION("twice") {
    bad.rows[0].push_back(parse_action("0B1"));
    CHECK_NAMED(bad, "twice", 0, "0B1 stands at 4 of worker 0 and at 3 of worker 0");
    bad.rows[0].back() = parse_action("0W1");
    CHECK_NAMED(bad, "twice", 0, "0B1 stands beside an I or W");
  }
  SECTION("order") {
    std::swap(bad.rows[1][0], bad.rows[1][1]);
    CHECK_NAMED(bad, "order", 1, "1B0 stands before 1F0, which it needs");
  }
  SECTION("accumulation") {
    std::swap(bad.rows[0][2], bad.rows[0][3]);
    CHECK_NAMED(bad, "accumulation", 0, "0B0 stands after micro-batch 1");
    const Schedule split = schedule_of_rows(1, 2, {{"0F0", "0F1", "0I0", "0I1", "0W1", "0W0"}});
    CHECK_NAMED(split, "accumulation", 0, "0W0 stands after micro-batch 1");
  }
  SECTION("blocked") {
    bad = schedule_of_rows(2, 2, {{"0F0", "0B0", "0F1", "0B1"}, {"1F0", "1F1", "1B0", "1B1"}});
    CHECK_NAMED(bad, "blocked", 0, "0B0 waits for 1I0 of worker 1");
    CHECK_NAMED(bad, "blocked", 1, "1F1 waits for 0F1 of worker 0");
  }
}

TEST_CASE("a schedule with I and W apart is valid", "[unit]") {
  CHECK(text_of(validate(schedule_of_rows(
                    2, 2, {{"0F0", "0F1", "0I0", "0B1", "0W0"}, {"1F0", "1I0", "1F1", "1I1", "1W0", "1W1"}})))
            .find("missing") == std::string::npos);
  CHECK(validate(schedule_of_rows(1, 2, {{"0F0", "0I0", "0F1", "0W0", "0I1", "0W1"}})).empty());
}

TEST_CASE("every finding of a schedule is returned, not only the first", "[unit]") {
  Schedule bad = make_schedule("1f1b", {2, 1, 2});
  std::swap(bad.rows[0][2], bad.rows[0][3]);
  std::swap(bad.rows[1][0], bad.rows[1][1]);
  bad.rows[1].pop_back();
  const auto found = validate(bad);
  for (const std::string rule : {"accumulation", "order", "missing"}) CHECK(names(found, rule, -1, ""));
}

TEST_CASE("dropping, doubling or swapping any action of a schedule is found", "[unit]") {
  for (const ScheduleGenerator& generator : schedule_generators()) {
    const Schedule good = make_schedule(generator.name, {2, generator.virtual_stages.least, 4});
    for (std::size_t row = 0; row < good.rows.size(); ++row) {
      for (std::size_t i = 0; i < good.rows[row].size(); ++i) {
        Schedule dropped = good, doubled = good;
        dropped.rows[row].erase(dropped.rows[row].begin() + static_cast<std::ptrdiff_t>(i));
        doubled.rows[row].push_back(good.rows[row][i]);
        CHECK_FALSE(validate(dropped).empty());
        CHECK_FALSE(validate(doubled).empty());
      }
    }
  }
}

// ---- programs ----

TEST_CASE("an instruction out of bounds is named before anything else", "[unit]") {
  Program bad = lowered("1f1b", 2, 2);
  at(bad, 0, "0F1").action.micro_batch = 9;
  CHECK_NAMED(bad, "range", 0, "0F9");
  bad = lowered("1f1b", 2, 2);
  at(bad, 0, "send value 0->1 m0 (row 0 -> 1)").edge = EdgeId(99);
  CHECK_NAMED(bad, "range", 0, "edge 99");
  bad = lowered("1f1b", 2, 2);
  bad.row_of_stage[0] = WorkerId(7);
  CHECK_NAMED(bad, "range", -1, "a stage is on row 7");
}

TEST_CASE("edges that wire() would not make are named", "[unit]") {
  Program bad = lowered("1f1b", 2, 2);
  bad.edges.pop_back();
  CHECK_NAMED(bad, "edges", -1, "got 5 edges, expected the 6");
}

TEST_CASE("an instruction that a row has no use for is named", "[unit]") {
  Program bad = lowered("1f1b", 2, 2);
  row_of(bad, 1).insert(row_of(bad, 1).begin() + 3, at(bad, 0, "send value 0->1 m0 (row 0 -> 1)"));
  CHECK_NAMED(bad, "stray", 1, "stands on row 1");
  bad = lowered("1f1b", 2, 2, {Mode::evaluate, false});
  row_of(bad, 0).insert(row_of(bad, 0).end() - 1, at(bad, 0, "0F1"));
  row_of(bad, 0)[row_of(bad, 0).size() - 2].kind = InstructionKind::update;
  CHECK_NAMED(bad, "stray", 0, "update has no use on row 0");
}

TEST_CASE("a missing and a doubled instruction are named", "[unit]") {
  Program bad = tied();
  take(row_of(bad, 1), position_of(bad, 1, "post gradient 2->1 m1 (row 2 -> 1)"));
  CHECK_NAMED(bad, "missing", 1, "row 1 lacks post gradient 2->1 m1");
  bad = tied();
  take(row_of(bad, 2), position_of(bad, 2, "update"));
  CHECK_NAMED(bad, "missing", 2, "row 2 lacks update");
  bad = tied();
  row_of(bad, 0).insert(row_of(bad, 0).begin() + position_of(bad, 0, "0F1"), at(bad, 0, "0F1"));
  CHECK_NAMED(bad, "twice", 0, "0F1 stands at");
}

TEST_CASE("an amendment before what it stands on, or where nobody needs it, is named", "[unit]") {
  const auto validated = [] {
    return lower(make_schedule("1f1b", {3, 1, 3}), rich_topology(3), {.clip = true, .post_validation = true});
  };
  Program bad = validated();
  move_before(bad, 1, "amend", "receive scale (row 0 -> 1)");
  CHECK_NAMED(bad, "update", 1, "amend stands before receive scale (row 0 -> 1)");
  bad = validated();
  move_before(bad, 0, "amend", "norm_total");
  CHECK_NAMED(bad, "update", 0, "amend stands before norm_total");
  bad = validated();
  move_before(bad, 2, "amend", "update");
  CHECK_NAMED(bad, "update", 2, "amend stands before update");
  bad = validated();
  take(row_of(bad, 1), position_of(bad, 1, "amend"));
  CHECK_NAMED(bad, "missing", 1, "row 1 lacks amend");
  bad = validated();
  move_before(bad, 1, "update", "norm_parts");
  CHECK_NAMED(bad, "update", 1, "update stands before norm_parts");
  bad = validated();
  move_before(bad, 1, "update", "amend");  // waits for the norm: what post-validation is there to avoid
  CHECK_NAMED(bad, "place", 1, "update is out of place");
  bad = tied();
  at(bad, 1, "update").kind = InstructionKind::amend;
  CHECK_NAMED(bad, "stray", 1, "amend has no use on row 1");
}

TEST_CASE("a row that does not begin with its header is named", "[unit]") {
  Program bad = tied();
  move_before(bad, 1, "1F0", "post header (row 0 -> 1)");
  CHECK_NAMED(bad, "header", 1, "1F0 stands before receive header");
  bad = tied();
  move_before(bad, 0, "post result (row 1 -> 0)", "make_header");
  CHECK_NAMED(bad, "header", 0, "post result (row 1 -> 0) stands before make_header");
}

TEST_CASE("a receive before its post and two posts outstanding are named", "[unit]") {
  Program bad = tied();
  move_before(bad, 1, "receive value 0->1 m0 (row 0 -> 1)", "post value 0->1 m0 (row 0 -> 1)");
  CHECK_NAMED(bad, "post", 1, "receive value 0->1 m0 (row 0 -> 1) stands before post value 0->1 m0");
  CHECK_NAMED(bad, "blocked", 1, "waits for its own post, which never comes");
  bad = tied();
  move_before(bad, 1, "post value 0->1 m1 (row 0 -> 1)", "receive value 0->1 m0 (row 0 -> 1)");
  CHECK_NAMED(bad, "post", 1, "the post before it on this edge has not been received");
}

TEST_CASE("a compute before its input and a send before its compute are named", "[unit]") {
  Program bad = tied();
  move_before(bad, 1, "1F1", "receive value 0->1 m1 (row 0 -> 1)");
  CHECK_NAMED(bad, "input", 1, "1F1 stands before receive value 0->1 m1");
  bad = tied();
  move_before(bad, 1, "send value 1->2 m1 (row 1 -> 2)", "1F1");
  CHECK_NAMED(bad, "output", 1, "send value 1->2 m1 (row 1 -> 2) stands before 1F1");
}

TEST_CASE("computes of one row in the wrong order are named", "[unit]") {
  Program bad = lower(schedule_of_rows(2, 1, {{"0F0", "1F0", "1B0", "0B0"}}), chain_topology(2), {});
  std::swap(at(bad, 0, "0F0"), at(bad, 0, "1F0"));
  CHECK_NAMED(bad, "order", 0, "1F0 stands before 0F0");
}

TEST_CASE("an edge whose ends count differently is named", "[unit]") {
  Program bad = lowered("gpipe", 2, 2);
  std::swap(at(bad, 0, "send value 0->1 m0 (row 0 -> 1)"), at(bad, 0, "send value 0->1 m1 (row 0 -> 1)"));
  CHECK_NAMED(bad, "match", 1, "message 0 of its edge: row 0 has send value 0->1 m1");
}

TEST_CASE("ties, norm and update in the wrong order are named", "[unit]") {
  Program bad = tied();
  move_before(bad, 0, "tie_sum 0", "receive tie 0 (row 2 -> 0)");
  CHECK_NAMED(bad, "tie", 0, "tie_sum 0 stands before receive tie 0");
  bad = tied();
  move_before(bad, 2, "send tie 0 (row 2 -> 0)", "2B2");
  CHECK_NAMED(bad, "tie", 2, "send tie 0 (row 2 -> 0) stands before 2B2, the last compute");
  bad = tied();
  move_before(bad, 0, "norm_parts", "tie_sum 0");
  CHECK_NAMED(bad, "norm", 0, "norm_parts stands before tie_sum 0");
  bad = tied();
  move_before(bad, 0, "norm_total", "receive norm (row 1 -> 0)");
  CHECK_NAMED(bad, "norm", 0, "norm_total stands before receive norm (row 1 -> 0)");
  bad = tied();
  move_before(bad, 0, "send scale (row 0 -> 1)", "norm_total");
  CHECK_NAMED(bad, "norm", 0, "send scale (row 0 -> 1) stands before norm_total");
  bad = tied();
  move_before(bad, 1, "update", "receive scale (row 0 -> 1)");
  CHECK_NAMED(bad, "update", 1, "update stands before receive scale");
  bad = tied(false);
  move_before(bad, 1, "update", "1B2");
  CHECK_NAMED(bad, "update", 1, "update stands before 1B2, the last compute of row 1");
}

TEST_CASE("an instruction behind wait_sends is named", "[unit]") {
  Program bad = tied();
  move_before(bad, 0, "wait_sends", "update");
  CHECK_NAMED(bad, "wait_sends", 0, "wait_sends stands before update");
}

TEST_CASE("an instruction out of its place is named even where it does no harm", "[unit]") {
  Program bad = tied();
  move_before(bad, 2, "send gradient 2->1 m0 (row 2 -> 1)", "2B1");  // late, but nothing blocks
  const auto found = validate(bad);
  INFO(text_of(found));
  REQUIRE(found.size() == 1);
  CHECK(found[0].rule == "place");
  CHECK(contains(found[0].message, "send gradient 2->1 m0 (row 2 -> 1) is out of place; it belongs behind"));
}

TEST_CASE("gradients of a program summed in another order are named", "[unit]") {
  Program bad = lower(schedule_of_rows(1, 2, {{"0F0", "0F1", "0B1", "0B0"}}), chain_topology(1), {});
  CHECK_NAMED(bad, "accumulation", 0, "0B0 stands after micro-batch 1");
}

TEST_CASE("a cycle of waiting rows is named with every row in it and what it waits for", "[unit]") {
  Program bad = lowered("1f1b", 2, 2);
  move_before(bad, 0, "post gradient 1->0 m0 (row 1 -> 0)", "0F0");
  move_before(bad, 0, "receive gradient 1->0 m0 (row 1 -> 0)", "0F0");
  const std::string gradient = "receive gradient 1->0 m0 (row 1 -> 0), and waits for row 1 to send gradient 1->0 m0";
  CHECK_NAMED(bad, "blocked", 0, gradient);
  CHECK_NAMED(bad, "blocked", 0, "row 0 -> row 1 -> row 0 (a cycle)");
  CHECK_NAMED(bad, "blocked", 1, "receive value 0->1 m0 (row 0 -> 1), and waits for row 0 to send value 0->1 m0");
}

TEST_CASE("a send that nobody takes is named with the post it waits for", "[unit]") {
  Program bad = lowered("gpipe", 2, 3);
  for (const std::string kind : {"post", "receive"}) {
    take(row_of(bad, 1), position_of(bad, 1, kind + " value 0->1 m1 (row 0 -> 1)"));
  }
  take(row_of(bad, 1), position_of(bad, 1, "1F1"));
  CHECK_NAMED(bad, "match", 1, "message 1 of its edge");
  CHECK_NAMED(bad, "blocked", 0, "wait_sends, and waits for row 1 to post value 0->1 m2");
}

TEST_CASE("require_valid shows all findings and the grid with a mark", "[unit]") {
  Schedule bad = make_schedule("1f1b", {3, 1, 3});
  std::swap(bad.rows[1][2], bad.rows[1][4]);
  check_golden("require_valid_schedule.txt", error_of<ScheduleError>([&] { require_valid(bad); }));
  Program program = lowered("1f1b", 3, 3);
  move_before(program, 1, "receive gradient 2->1 m1 (row 2 -> 1)", "1F1");
  check_golden("require_valid_program.txt", error_of<ScheduleError>([&] { require_valid(program); }));
  CHECK_NOTHROW(require_valid(lowered("1f1b", 3, 3)));
  CHECK_NOTHROW(require_valid(make_schedule("1f1b", {3, 1, 3})));
}

// ---- every single mistake ----

namespace {

Program random_program(std::mt19937& random) {
  const auto draw_from = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  const auto& generators = schedule_generators();
  const auto& generator = generators[static_cast<std::size_t>(draw_from(0, static_cast<int>(generators.size()) - 1))];
  const int virtual_stages = generator.virtual_stages.nearest(draw_from(1, 3));
  const int workers = draw_from(1, virtual_stages == 1 ? 5 : 3);
  const int micro_batches = generator.name == "dualpipev" ? 2 * workers + draw_from(0, 1) : draw_from(1, 6);
  const int stages = workers * virtual_stages;
  const Topology topology = draw_from(0, 1) == 0 ? chain_topology(stages) : rich_topology(stages);
  const Mode mode = draw_from(0, 3) == 0 ? Mode::evaluate : Mode::train;
  return lower(generator.make({workers, virtual_stages, micro_batches}), topology, {mode, draw_from(0, 1) == 1});
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
  const LowerOptions options{good.mode, good.clip, good.lanes};
  return lower(schedule_of(moved), good.topology, options).rows == moved.rows;
}

}  // namespace

TEST_CASE("dropping, doubling or moving any one instruction of a program is found", "[unit]") {
  std::mt19937 random(7);
  for (int round = 0; round < 40; ++round) {
    const Program good = random_program(random);
    CAPTURE(good.name);
    REQUIRE(text_of(validate(good)).empty());
    Program bad = good;
    for (std::size_t row = 0; row < good.rows.size(); ++row) {
      for (std::size_t i = 0; i < good.rows[row].size(); ++i) {
        const std::string what = describe(good, good.rows[row][i]);
        CAPTURE(row, i, what);
        Row& changed = bad.rows[row];
        const Instruction taken = take(changed, static_cast<int>(i));
        if (validate(bad).empty()) FAIL("dropped");
        const std::size_t to = std::uniform_int_distribution<std::size_t>(0, changed.size())(random);
        changed.insert(changed.begin() + static_cast<std::ptrdiff_t>(to), taken);
        if (validate(bad).empty() && !may_move(good, bad, good.rows[row], i, to)) FAIL("moved to " << to);
        changed = good.rows[row];
        changed.insert(changed.begin() + static_cast<std::ptrdiff_t>(to), taken);
        if (validate(bad).empty()) FAIL("doubled at " << to);
        changed = good.rows[row];
      }
    }
  }
}
