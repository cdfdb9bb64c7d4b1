// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/action.hpp"

#include <charconv>

#include "runtime/base/check.hpp"
#include "runtime/base/error.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {

namespace {

UserError bad_action(std::string_view text, const std::string& what) {
  constexpr std::size_t kShown = 40;
  return UserError(concat("bad action '", one_line(std::string(text), kShown), "': ", what,
                          "; expected stage, one of F B I W, micro-batch, e.g. 0F0, 3B2, 1I4 or 1W4"));
}

/// Takes the digits at the front of `rest`.
int take_number(std::string_view text, std::string_view& rest, const char* what) {
  int value = 0;
  const char* const end = rest.data() + rest.size();
  const bool digit = !rest.empty() && rest.front() >= '0' && rest.front() <= '9';  // from_chars would take a '-'
  const auto [stop, error] = std::from_chars(rest.data(), end, value);
  if (!digit || error == std::errc::invalid_argument) throw bad_action(text, concat("no ", what, " number"));
  if (error == std::errc::result_out_of_range) throw bad_action(text, concat("the ", what, " number is too large"));
  rest.remove_prefix(static_cast<std::size_t>(stop - rest.data()));
  return value;
}

Op take_op(std::string_view text, std::string_view& rest) {
  const char first = rest.empty() ? '\0' : rest.front();
  for (const Op op : {Op::forward, Op::backward, Op::input_grad, Op::weight_grad}) {
    if (first != letter(op)) continue;
    rest.remove_prefix(1);
    return op;
  }
  throw bad_action(text, "no such letter");
}

}  // namespace

char letter(Op op) {
  switch (op) {
    case Op::forward: return 'F';
    case Op::backward: return 'B';
    case Op::input_grad: return 'I';
    case Op::weight_grad: return 'W';
  }
  LOCKSTEP_CHECK(false, "op ", static_cast<int>(op));
  return '?';
}

std::string to_text(const Action& action) {
  return concat(action.stage, letter(action.op), action.micro_batch);
}

Action parse_action(std::string_view text) {
  std::string_view rest = text;
  Action action;
  action.stage = StageId(take_number(text, rest, "stage"));
  action.op = take_op(text, rest);
  action.micro_batch = take_number(text, rest, "micro-batch");
  if (!rest.empty()) throw bad_action(text, concat("'", one_line(std::string(rest), 20), "' is left over"));
  return action;
}

std::vector<Action> required_before(const Action& action, const StageGraph& graph) {
  const auto stage = static_cast<std::size_t>(action.stage.value());
  std::vector<Action> required;
  switch (action.op) {
    case Op::forward:
      for (const StageId producer : graph.producers_of[stage]) {
        required.push_back({producer, Op::forward, action.micro_batch});
      }
      break;
    case Op::backward:
    case Op::input_grad:
      required.push_back({action.stage, Op::forward, action.micro_batch});
      for (const StageId consumer : graph.consumers_of[stage]) {
        required.push_back({consumer, Op::input_grad, action.micro_batch});
      }
      break;
    case Op::weight_grad: required.push_back({action.stage, Op::input_grad, action.micro_batch}); break;
  }
  return required;
}

}  // namespace lockstep
