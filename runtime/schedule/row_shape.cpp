// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/row_shape.hpp"

#include <algorithm>
#include <map>

#include "runtime/base/check.hpp"

namespace lockstep {

namespace {

enum Part { kHeader, kResultOut, kBody, kTies, kNorm, kUpdate, kResultIn, kWaitSends };

class RowShape {
 public:
  RowShape(const Program& program, const Wiring& wiring, const std::vector<Instruction>& row) : program_(program) {
    for (const Instruction& instruction : row) {
      if (instruction.kind != InstructionKind::compute) continue;
      const int number = static_cast<int>(ordinal_.size());
      if (!ordinal_.emplace(instruction.action, number).second) continue;
      for (const EdgeMessage& message : wiring.inputs(instruction.action)) reader_of_.emplace(message, number);
      for (const EdgeMessage& message : wiring.outputs(instruction.action)) maker_of_.emplace(message, number);
    }
  }

  Place place_of(const Instruction& instruction) const {
    switch (instruction.kind) {
      case InstructionKind::make_header: return {kHeader, 0, 0};
      case InstructionKind::compute: return {kBody, ordinal_.at(instruction.action), 3};
      case InstructionKind::tie_sum: return {kTies, instruction.tie, 3};
      case InstructionKind::norm_parts: return {kNorm, 1, 0};
      case InstructionKind::norm_total: return {kNorm, 4, 0};
      case InstructionKind::update: return program_.post_validation ? Place{kNorm, 2, 1} : Place{kUpdate, 0, 0};
      case InstructionKind::amend: return {kUpdate, 0, 0};
      case InstructionKind::wait_sends: return {kWaitSends, 0, 0};
      case InstructionKind::post: return message_place(instruction, 0);
      case InstructionKind::receive: return message_place(instruction, 1);
      case InstructionKind::send: return message_place(instruction, 2);
    }
    LOCKSTEP_CHECK(false, "instruction kind ", static_cast<int>(instruction.kind));
    return {};
  }

 private:
  /// `step`: 0 post, 1 receive, 2 send.
  Place message_place(const Instruction& instruction, int step) const {
    constexpr std::array<int, 3> kTieSteps = {0, 2, 1};    // post, send, receive, tie_sum
    constexpr std::array<int, 3> kNormItems = {0, 3, 2};   // post, norm_parts, send, receive, norm_total
    constexpr std::array<int, 3> kScaleItems = {6, 7, 5};  // norm_total, send; or post, receive
    const auto at = static_cast<std::size_t>(step);
    const Edge& edge = program_.edges[index(instruction.edge)];
    switch (edge.kind) {
      case EdgeKind::header: return {kHeader, 1 + step, 0};
      case EdgeKind::result: return {step == 1 ? kResultIn : kResultOut, 0, 0};
      case EdgeKind::tie: return {kTies, edge.tie, kTieSteps[at]};
      case EdgeKind::norm: return {kNorm, kNormItems[at], 0};
      case EdgeKind::scale: return {kNorm, kScaleItems[at], 0};
      case EdgeKind::value:
      case EdgeKind::gradient: break;
    }
    const EdgeMessage message{instruction.edge, instruction.action};
    if (step == 2) return {kBody, number_in(maker_of_, message), 4};
    const int reader = number_in(reader_of_, message);
    if (step == 1) return {kBody, reader, 1};
    return reader == 0 ? Place{kBody, 0, 0} : Place{kBody, reader - 1, 2};  // one compute ahead
  }

  /// 0 for a message that no compute of the row reads or makes: another rule reports it.
  static int number_in(const std::map<EdgeMessage, int>& numbers, const EdgeMessage& message) {
    const auto found = numbers.find(message);
    return found == numbers.end() ? 0 : found->second;
  }

  const Program& program_;
  std::map<Action, int> ordinal_;
  std::map<EdgeMessage, int> reader_of_, maker_of_;
};

}  // namespace

std::vector<Place> places_of_row(const Program& program, const Wiring& wiring, const std::vector<Instruction>& row) {
  const RowShape shape(program, wiring, row);
  std::vector<Place> places;
  places.reserve(row.size());
  for (const Instruction& instruction : row) places.push_back(shape.place_of(instruction));
  return places;
}

std::vector<std::size_t> out_of_order(const std::vector<Place>& places) {
  // Longest non-descending subsequence. ends[n]: where the one of length n + 1 with the lowest last place stops.
  std::vector<std::size_t> ends;
  std::vector<std::optional<std::size_t>> before(places.size());
  const auto lower = [&places](const Place& place, std::size_t end) { return place < places[end]; };
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto at = std::upper_bound(ends.begin(), ends.end(), places[i], lower);
    if (at != ends.begin()) before[i] = *(at - 1);
    if (at == ends.end()) {
      ends.push_back(i);
    } else {
      *at = i;
    }
  }
  std::vector<bool> stays(places.size(), false);
  std::optional<std::size_t> at = ends.empty() ? std::nullopt : std::optional(ends.back());
  for (; at; at = before[*at]) stays[*at] = true;
  std::vector<std::size_t> moved;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (!stays[i]) moved.push_back(i);
  }
  return moved;
}

std::optional<std::size_t> belongs_behind(const std::vector<Place>& places, std::size_t position) {
  std::optional<std::size_t> target;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (i != position && places[i] <= places[position] && (!target || places[i] >= places[*target])) target = i;
  }
  return target;
}

}  // namespace lockstep
