// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/lower.hpp"

#include <algorithm>

#include "runtime/base/check.hpp"
#include "runtime/schedule/execution.hpp"
#include "runtime/schedule/schedule_text.hpp"
#include "runtime/schedule/validate.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

long count(const Program& program, const std::function<bool(const Instruction&)>& wanted) {
  long found = 0;
  for (const auto& row : program.rows) found += std::count_if(row.begin(), row.end(), wanted);
  return found;
}

long computes(const Program& program, Op op) {
  return count(program, [op](const Instruction& instruction) {
    return instruction.kind == InstructionKind::compute && instruction.action.op == op;
  });
}

long sends(const Program& program, EdgeKind kind) {
  return count(program, [&](const Instruction& instruction) {
    return instruction.kind == InstructionKind::send &&
           program.edges[static_cast<std::size_t>(instruction.edge.value())].kind == kind;
  });
}

}  // namespace

TEST_CASE("small programs are the golden ones", "[unit]") {
  check_golden("program_1f1b_3x3_train.txt", program_text(lowered("1f1b", 3, 3)));
  check_golden("program_1f1b_2x2_train_clip.txt", program_text(lowered("1f1b", 2, 2, {Mode::train, true})));
  check_golden("program_1f1b_2x2_train_post_validation.txt",
               program_text(lowered("1f1b", 2, 2, {.clip = true, .post_validation = true})));
  check_golden("program_gpipe_2x2_evaluate.txt", program_text(lowered("gpipe", 2, 2, {Mode::evaluate, false})));
  check_golden("program_gpipe_3x2_flush.txt", program_text(lowered("gpipe", 3, 2, {Mode::flush, false})));
  check_golden("program_gpipe_3x2_stop.txt", program_text(lowered("gpipe", 3, 2, {Mode::stop, false})));
  check_golden("program_gpipe_1x2_train_clip.txt", program_text(lowered("gpipe", 1, 2, {Mode::train, true})));
  check_golden("program_1f1b_3x2_tie_skip_frozen.txt",
               program_text(lower(make_schedule("1f1b", {3, 1, 2}), rich_topology(3), {Mode::train, true})));
}

TEST_CASE("every mode of every generator gives a valid program", "[unit]") {
  for (const ScheduleGenerator& generator : schedule_generators()) {
    for (const Mode mode : {Mode::train, Mode::evaluate, Mode::flush, Mode::stop}) {
      for (const bool clip : {false, true}) {
        const Schedule schedule = make_schedule(generator.name, {2, generator.virtual_stages.least, 5});
        CHECK(text_of(validate(lower(schedule, rich_topology(schedule.stages), {mode, clip}))).empty());
      }
    }
  }
}

TEST_CASE("with post-validation every generator gives a valid program in which no update waits", "[unit]") {
  for (const ScheduleGenerator& generator : schedule_generators()) {
    const int each = generator.virtual_stages.least;
    const Schedule schedule = make_schedule(generator.name, {2, each, 5});
    const Program program = lower(schedule, rich_topology(2 * each), {.clip = true, .post_validation = true});
    INFO(generator.name);
    CHECK(text_of(validate(program)).empty());
    for (const std::vector<Instruction>& row : program.rows) {
      const auto of = [&row](InstructionKind kind) {
        return std::find_if(row.begin(), row.end(), [kind](const Instruction& i) { return i.kind == kind; });
      };
      CHECK(of(InstructionKind::norm_parts) < of(InstructionKind::update));
      CHECK(of(InstructionKind::update) < of(InstructionKind::amend));
      for (auto at = of(InstructionKind::norm_parts); at != of(InstructionKind::update); ++at)
        CHECK(at->kind != InstructionKind::receive);
    }
  }
}

TEST_CASE("recompute except_last leaves out the forwards whose backward follows at once", "[unit]") {
  const auto again = [](const std::string& name, Recompute recompute) {
    std::string text;
    for (const bool one :
         recomputed(lower(make_schedule(name, {2, 1, 3}), chain_topology(2), {.recompute = recompute})))
      text += one ? 'r' : '.';
    return text;
  };
  CHECK(again("1f1b", Recompute::never) == "......");
  CHECK(again("1f1b", Recompute::always) == "rrrrrr");
  CHECK(again("1f1b", Recompute::except_last) == "rrr...");   // 0F0 0F1 0B0 0F2 0B1 0B2 | 1F0 1B0 1F1 1B1 1F2 1B2
  CHECK(again("gpipe", Recompute::except_last) == "rrrrrr");  // 1F0 1F1 1F2 1B0 ...
}

TEST_CASE("all programs of a job share one numbering of edges", "[unit]") {
  const Topology topology = rich_topology(4);
  const auto edges = lower(make_schedule("gpipe", {4, 1, 8}), topology, {}).edges;
  CHECK(edges == lower(make_schedule("gpipe", {4, 1, 3}), topology, {Mode::evaluate, false}).edges);
  CHECK(edges == lower(make_schedule("1f1b", {4, 1, 1}), topology, {Mode::stop, true}).edges);
}

TEST_CASE("flows between stages of one row have neither edges nor messages", "[unit]") {
  const Schedule looped = schedule_of_rows(4, 1, {{"0F0", "2F0", "2B0", "0B0"}, {"1F0", "3F0", "3B0", "1B0"}});
  const Program program = lower(looped, chain_with_skip(4, 0, 2, true), {});
  CHECK(text_of(validate(program)).empty());
  CHECK(sends(program, EdgeKind::value) == 3);
  CHECK(sends(program, EdgeKind::gradient) == 3);

  const Program alone = lower(schedule_of_rows(2, 1, {{"0F0", "1F0", "1B0", "0B0"}}), chain_topology(2), {});
  CHECK(alone.edges.empty());
  CHECK(text_of(validate(alone)).empty());
}

TEST_CASE("frozen stages have no backward, and nothing is sent back to them", "[unit]") {
  Topology topology = chain_topology(3);
  topology.has_backward[0] = topology.has_weight_grad[0] = false;
  for (Flow& flow : topology.flows) flow.differentiable = flow.differentiable && flow.from.value() != 0;
  const Program program = lower(make_schedule("1f1b", {3, 1, 4}), topology, {});
  CHECK(text_of(validate(program)).empty());
  CHECK(computes(program, Op::forward) == 12);
  CHECK(computes(program, Op::backward) == 8);
  CHECK(sends(program, EdgeKind::gradient) == 4);
}

TEST_CASE("a stage without trainable layers keeps I or B and loses W", "[unit]") {
  Topology topology = chain_topology(2);
  topology.has_weight_grad[1] = false;
  const Schedule split = schedule_of_rows(2, 1, {{"0F0", "0I0", "0W0"}, {"1F0", "1I0", "1W0"}});
  const Program program = lower(split, topology, {});
  CHECK(text_of(validate(program)).empty());
  CHECK(computes(program, Op::input_grad) == 2);
  CHECK(computes(program, Op::weight_grad) == 1);
  CHECK(computes(lower(make_schedule("gpipe", {2, 1, 1}), topology, {}), Op::backward) == 2);
}

TEST_CASE("gradients travel behind I, not behind W", "[unit]") {
  const Schedule split = schedule_of_rows(2, 1, {{"0F0", "0I0", "0W0"}, {"1F0", "1I0", "1W0"}});
  const Program program = lower(split, chain_topology(2), {});
  const std::string gradient = "send gradient 1->0 m0 (row 1 -> 0)";
  CHECK(position_of(program, 1, gradient) == position_of(program, 1, "1I0") + 1);
  CHECK(position_of(program, 1, gradient) < position_of(program, 1, "1W0"));
}

TEST_CASE("evaluation runs the forwards only, flush and stop nothing", "[unit]") {
  const Program evaluate = lowered("1f1b", 3, 4, {Mode::evaluate, true});
  CHECK(computes(evaluate, Op::forward) == 12);
  CHECK(computes(evaluate, Op::backward) == 0);
  CHECK(sends(evaluate, EdgeKind::norm) == 0);
  CHECK(sends(evaluate, EdgeKind::result) == 2);
  CHECK(sends(lowered("1f1b", 3, 4, {Mode::flush, true}), EdgeKind::result) == 2);
  CHECK(sends(lowered("1f1b", 3, 4, {Mode::stop, true}), EdgeKind::result) == 0);
}

TEST_CASE("a long skip over a single edge would block 1f1b: why a flow has as many lanes as it is long", "[unit]") {
  Program program = lower(make_schedule("1f1b", {8, 1, 12}), chain_with_skip(8, 0, 7, true), {});
  CHECK(text_of(validate(program)).empty());
  for (auto& row : program.rows) {  // everything into lane 0
    for (Instruction& instruction : row) {
      if (instruction.edge.valid()) {
        instruction.edge =
            EdgeId(instruction.edge.value() - program.edges[static_cast<std::size_t>(instruction.edge.value())].lane);
      }
    }
  }
  ExecutionClock no_time;
  CHECK_FALSE(Execution(program, no_time).run(1));
}

TEST_CASE("a tie is exchanged between all rows that hold it, once, and summed on each", "[unit]") {
  Topology topology = chain_topology(4);
  topology.ties = {{{StageId(0), StageId(2), StageId(3), StageId(3)}}, {{StageId(1), StageId(1)}}};
  const Program program = lower(make_schedule("1f1b", {4, 1, 4}), topology, {Mode::train, true});
  CHECK(text_of(validate(program)).empty());
  CHECK(sends(program, EdgeKind::tie) == 6);
  CHECK(count(program, [](const Instruction& i) { return i.kind == InstructionKind::tie_sum && i.tie == 0; }) == 3);
  CHECK(count(program, [](const Instruction& i) { return i.kind == InstructionKind::tie_sum && i.tie == 1; }) == 1);
}

TEST_CASE("a schedule that does not fit the model is refused", "[unit]") {
  const Schedule schedule = make_schedule("gpipe", {3, 1, 2});
  CHECK(contains(error_of<ScheduleError>([&] { lower(schedule, chain_topology(4), {}); }),
                 "has 3 stages, the model was cut into 4"));
  Schedule beyond = schedule;
  beyond.rows[1].push_back(parse_action("1F7"));
  CHECK(contains(error_of<ScheduleError>([&] { lower(beyond, chain_topology(3), {}); }), "worker 1 has 1F7"));
  beyond = schedule;
  beyond.rows[1].push_back(parse_action("9F0"));
  CHECK(contains(error_of<ScheduleError>([&] { lower(beyond, chain_topology(3), {}); }), "worker 1 has 9F0"));
  beyond = schedule;
  beyond.rows[1].push_back(parse_action("2F0"));
  CHECK(contains(error_of<ScheduleError>([&] { lower(beyond, chain_topology(3), {}); }),
                 "stage 2 is on workers 1 and 2"));
  beyond = schedule;
  beyond.rows[1].clear();
  CHECK(contains(error_of<ScheduleError>([&] { lower(beyond, chain_topology(3), {}); }), "stage 1 is on no worker"));
  Topology broken = chain_topology(3);
  broken.has_backward[1] = false;
  CHECK_THROWS_AS(lower(schedule, broken, {}), InternalError);
}
