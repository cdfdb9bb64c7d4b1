// SPDX-License-Identifier: Apache-2.0
//
// The bytes of a stage, layer by layer, and of a worker: stage_bytes and total_bytes().
#include "partitioner/stage_bytes.hpp"
#include "tests/unit/plan_support.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// The numbers of workspace_of as [F, B, I, W].
std::vector<double> numbers(const Workspace& workspace) {
  return {workspace.forward, workspace.backward, workspace.input_grad, workspace.weight_grad};
}

Simulation of_rows(const std::vector<std::vector<std::string>>& rows, int stages, int micro_batches, const Costs& costs,
                   LowerOptions options = {}) {
  return simulate(lower(schedule_of_rows(stages, micro_batches, rows), chain_topology(stages), options), costs);
}

}  // namespace

TEST_CASE("a forward needs what the layers before keep and what the layer at work needs", "[unit][plan]") {
  LayerBytes a, b, c;
  a.activations = 10, a.forward_workspace = 100;
  b.activations = 20, b.forward_workspace = 95;
  c.activations = 40, c.forward_workspace = 30;
  CHECK(workspace_of({a, b, c}, false).forward == 105);
  b.forward_workspace = 50;
  CHECK(workspace_of({a, b, c}, false).forward == 100);
  a.activations = 0, a.made = 70, b.passed = 70;  // not kept: gone once b has read it
  CHECK(workspace_of({a, b, c}, false).forward == 120);
}

TEST_CASE("a backward gives back layer by layer", "[unit][plan]") {
  LayerBytes a, b;
  a.activations = 10, a.weight_grad = 3, a.input_grad_workspace = 50, a.weight_grad_workspace = 4,
  a.backward_workspace = 40, a.gradients = 6;
  b.activations = 30, b.weight_grad = 7, b.input_grad_workspace = 8, b.weight_grad_workspace = 9,
  b.backward_workspace = 12, b.gradients = 11;
  a.output_gradients = b.input_gradients = 5;
  // B: of b 12; I of a: -30 + 5 + 50. I alone: what b keeps for W comes on top. W: 9.
  CHECK(numbers(workspace_of({a, b}, false)) == std::vector<double>{10, 25, 32, 9});
  // The first time b ends with 11 bytes more, and needs 11 where the product needed 9.
  CHECK(numbers(workspace_of({a, b}, true)) == std::vector<double>{10, 36, 32, 11});
  a.input_grad_workspace = 20;
  CHECK(workspace_of({a, b}, false).backward == -30 + 5 + 40);
  CHECK(workspace_of({a, b}, true).backward == -30 + 5 + 40 + 11 + 2);
  b.backward_workspace = 30;
  CHECK(workspace_of({a, b}, false).backward == 30);
  CHECK(workspace_of({a, b}, true).backward == 30 + 2);
  // What is kept for b's backward alone goes with it.
  b.backward_workspace = 12, a.input_grad_workspace = 50, b.released = 20;
  CHECK(numbers(workspace_of({a, b}, false)) == std::vector<double>{10, 12, 12, 9});
}

TEST_CASE("what is run again comes back one layer at a time", "[unit][plan]") {
  LayerBytes a, b;
  a.recomputed = b.recomputed = true;
  a.activations = 1, a.recomputed_bytes = 100, a.input_grad_workspace = 10, a.forward_workspace = 105;
  b.activations = 2, b.recomputed_bytes = 200, b.input_grad_workspace = 20, b.forward_workspace = 215;
  CHECK(workspace_of({a, b}, false).backward == 220);
  b.recomputed_bytes = 0, b.forward_workspace = 300;
  CHECK(workspace_of({a, b}, false).input_grad == 300);
  LayerBytes loss;  // what it keeps goes before the layer is run again
  loss.recomputed = true, loss.activations = loss.loss_activations = loss.loss_gradients = 40;
  loss.recomputed_bytes = 50, loss.input_grad_workspace = 60;
  CHECK(workspace_of({loss}, false).backward == 70);
  loss.recomputed_bytes = 5, loss.input_grad_workspace = 6;
  CHECK(workspace_of({loss}, false).backward == 40);
  a.input_grad_workspace = 1000;
  CHECK(workspace_of({a, loss}, false).backward == 100 + 1000 - 40);
}

TEST_CASE("layers without a backward are passed by", "[unit][plan]") {
  LayerBytes frozen, trained;
  frozen.has_backward = false, frozen.made = 20, frozen.forward_workspace = 25;
  trained.activations = 5, trained.input_grad_workspace = 3, trained.released = 20, trained.forward_workspace = 6;
  CHECK(numbers(workspace_of({frozen, trained}, false)) == std::vector<double>{26, 3, 3, 0});
}

TEST_CASE("total bytes: standing, alive, gradients, and what runs", "[unit][plan]") {
  Costs costs;
  costs.stages.resize(1);
  StageCost& stage = costs.stages[0];
  stage.activation_bytes = 100;
  stage.gradient_bytes = 40;
  costs.resident_bytes = {1000};
  const auto total = [&](const std::vector<std::string>& row, LowerOptions options = {}) {
    return of_rows({row}, 1, 2, costs, options).total_bytes[0];
  };
  const std::vector<std::string> gpipe = {"0F0", "0F1", "0B0", "0B1"};
  CHECK(total(gpipe) == 1200);
  stage.workspace.forward = 130;  // at 0F1
  CHECK(total(gpipe) == 1230);
  stage.workspace.backward = 25;
  CHECK(total(gpipe) == 1230);
  stage.first_workspace.backward = 50;  // at 0B0: two alive
  CHECK(total(gpipe) == 1250);
  stage.workspace.backward = 115;  // at 0B1: one alive, and the gradients
  CHECK(total(gpipe) == 1255);
  stage.recompute_first_workspace.backward = 300;
  CHECK(total(gpipe) == 1255);
  stage.recompute_activation_bytes = 10;
  CHECK(total(gpipe, {.recompute = Recompute::always}) == 1000 + 20 + 300);
  stage.recompute_workspace.backward = 500;
  CHECK(total(gpipe, {.recompute = Recompute::always}) == 1000 + 10 + 40 + 500);
  CHECK(of_rows({gpipe}, 1, 2, costs).peak_bytes[0] == 200);
}

TEST_CASE("total bytes: I leaves what W needs, W makes the gradients", "[unit][plan]") {
  Costs costs;
  costs.stages.resize(1);
  StageCost& stage = costs.stages[0];
  stage.activation_bytes = 100;
  stage.weight_grad_bytes = 30;
  stage.gradient_bytes = 40;
  const auto total = [&] { return of_rows({{"0F0", "0I0", "0F1", "0I1", "0W0", "0W1"}}, 1, 2, costs).total_bytes[0]; };
  CHECK(total() == 130);  // at 0F1
  stage.workspace.input_grad = 9;
  CHECK(total() == 139);
  stage.first_workspace.weight_grad = 90;  // at 0W0
  CHECK(total() == 150);
  stage.workspace.weight_grad = 85;  // at 0W1
  CHECK(total() == 155);
}

TEST_CASE("total bytes: a gradient handed to another stage of the row waits for its B", "[unit][plan]") {
  Costs costs;
  costs.stages.resize(2);
  costs.flow_bytes = {7};
  const auto total = [&](const std::vector<std::string>& row) {
    Schedule schedule = schedule_of_rows(2, 2, {row});
    Topology topology = chain_topology(2);
    return simulate(lower(schedule, topology, {}), costs);
  };
  CHECK(total({"0F0", "1F0", "1B0", "0B0", "0F1", "1F1", "1B1", "0B1"}).total_bytes[0] == 7);
  CHECK(total({"0F0", "1F0", "0F1", "1F1", "1B0", "1B1", "0B0", "0B1"}).total_bytes[0] == 14);
  CHECK(total({"0F0", "1F0", "0F1", "1F1", "1B0", "1B1", "0B0", "0B1"}).peak_bytes[0] == 0);
}

TEST_CASE("total bytes: within a rank no slot is posted, and a gradient is the receiver's", "[unit][plan]") {
  Costs costs;
  costs.stages.resize(2);
  costs.flow_bytes = {7};
  const std::vector<std::vector<std::string>> rows = {{"0F0", "0F1", "0B0", "0B1"}, {"1F0", "1F1", "1B0", "1B1"}};
  CHECK(of_rows(rows, 2, 2, costs).total_bytes == std::vector<double>{14, 14});  // one used, the next one posted
  costs.places = {{0, 0}, {0, 0}};
  CHECK(of_rows(rows, 2, 2, costs).total_bytes == std::vector<double>{7, 0});
}

TEST_CASE("total bytes: a tie's sum takes the first buffer's place, or stands beside it", "[unit][plan]") {
  Costs costs;
  costs.stages.resize(2);
  for (StageCost& stage : costs.stages) stage.gradient_bytes = 10;
  costs.shared_bytes = {10};
  Topology topology = chain_topology(2);
  topology.shared.push_back({{StageId(0), StageId(1)}});
  const auto total = [&](LowerOptions options = {}) {
    return simulate(lower(make_schedule("gpipe", {2, 1, 1}), topology, options), costs).total_bytes;
  };
  CHECK(total() == std::vector<double>{10 + 10 + 10, 10 + 10 + 20});  // gradient, slot, sum
  costs.places = {{0, 0}, {0, 0}};
  CHECK(total() == std::vector<double>{10 + 20, 10 + 20});
}

TEST_CASE("negative bytes are refused by name", "[unit][plan]") {
  Costs costs = equal_costs(1, 1, 1, 1);
  costs.stages[0].gradient_bytes = -1;
  CHECK(contains(error_of<UserError>([&] { simulate(lowered("1f1b", 1, 1), costs); }), "gradient_bytes is -1"));
  costs.stages[0].gradient_bytes = 0;
  costs.stages[0].recompute_workspace.weight_grad = -2;
  CHECK(contains(error_of<UserError>([&] { simulate(lowered("1f1b", 1, 1), costs); }), "workspace is -2"));
}
