// SPDX-License-Identifier: Apache-2.0
//
// One compute of a stage on a micro-batch, and its text form: stage, letter, micro-batch ("0F0", "3B2", "1I4", "1W4").
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/ids.hpp"

namespace lockstep {

/// F forward; B full backward; I gradient with respect to the stage's input; W gradient with respect to its weights.
/// B is I then W through the same two functions.
enum class Op : std::uint8_t { forward, backward, input_grad, weight_grad };

/// The letter.
constexpr const char* to_string(Op op) {
  switch (op) {
    case Op::forward: return "F";
    case Op::backward: return "B";
    case Op::input_grad: return "I";
    case Op::weight_grad: return "W";
  }
  return nullptr;
}
constexpr char letter(Op op) {
  return *to_string(op);
}

struct Action {
  StageId stage;
  Op op = Op::forward;
  int micro_batch = 0;
  auto operator<=>(const Action&) const = default;
};

std::string to_text(const Action& action);

/// Reads "3B2". Throws UserError naming the text and the accepted form.
Action parse_action(std::string_view text);

/// THE dependency rule, stated once: every action that must be complete before `action` may run.
/// `producers_of[s]`: the stages whose values stage s reads. `consumers_of[s]`: the stages that send a gradient back to
/// stage s, which are the readers of its differentiable values (both ascending, without s itself). Lowering,
/// validation, simulation and drawing all call this function.
///   F(s, m): F(p, m) of every producer p of s.
///   B(s, m), I(s, m): F(s, m), and B or I (written here as I) of (c, m) for every consumer c of s.
///   W(s, m): I(s, m).
/// The full backward B stands for both I and W: whoever looks an I or W up accepts B in its place.
struct StageGraph {
  std::vector<std::vector<StageId>> producers_of;
  std::vector<std::vector<StageId>> consumers_of;
};
std::vector<Action> required_before(const Action& action, const StageGraph& graph);

}  // namespace lockstep
