// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/error.hpp"
#include "runtime/schedule/program.hpp"
#include "tests/unit/schedule_support.hpp"

using namespace lockstep;
using lockstep::test::contains;
using lockstep::test::error_of;

TEST_CASE("an action is written and read in the same form", "[unit]") {
  for (const std::string text : {"0F0", "3B2", "1I4", "1W4", "12F345"}) CHECK(to_text(parse_action(text)) == text);
  CHECK(parse_action("3B2") == Action{StageId(3), Op::backward, 2});
}

TEST_CASE("a bad action is refused with its text, the reason and the accepted form", "[unit]") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no stage number"},
      {"F0", "no stage number"},
      {"-1F0", "no stage number"},
      {"1", "no such letter"},
      {"1X0", "no such letter"},
      {"1f0", "no such letter"},
      {"1F", "no micro-batch number"},
      {"1F-2", "no micro-batch number"},
      {"1F2x", "'x' is left over"},
      {"99999999999F0", "the stage number is too large"},
      {"1F99999999999", "the micro-batch number is too large"},
  };
  for (const auto& [text, reason] : cases) {
    const std::string message = error_of<UserError>([&] { parse_action(text); });
    CAPTURE(text, message);
    CHECK(contains(message, "'" + text + "'"));
    CHECK(contains(message, reason));
    CHECK(contains(message, "0F0, 3B2"));
  }
}

TEST_CASE("the dependency rule: F after producers, B and I after F and consumers, W after I", "[unit]") {
  const StageGraph graph = stage_graph(lockstep::test::chain_with_skip(4, 0, 2, true));
  const auto texts = [&](const std::string& action) {
    std::string all;
    for (const Action& required : required_before(parse_action(action), graph)) all += to_text(required) + " ";
    return all;
  };
  CHECK(texts("0F5").empty());
  CHECK(texts("2F5") == "0F5 1F5 ");
  CHECK(texts("0B5") == "0F5 1I5 2I5 ");
  CHECK(texts("3I5") == "3F5 ");
  CHECK(texts("2W5") == "2I5 ");
}

TEST_CASE("only differentiable flows out of stages with a backward send gradients back", "[unit]") {
  Topology topology = chain_topology(4);
  topology.has_backward[0] = topology.has_weight_grad[0] = false;
  topology.flows[0].differentiable = false;  // 0 -> 1
  const StageGraph graph = stage_graph(topology);
  CHECK(graph.consumers_of[0].empty());
  CHECK(graph.consumers_of[1] == std::vector{StageId(2)});
  CHECK(graph.producers_of[3] == std::vector{StageId(0), StageId(2)});  // the targets come from stage 0
}
