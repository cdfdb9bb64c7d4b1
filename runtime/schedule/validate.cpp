// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/validate.hpp"

#include <algorithm>
#include <sstream>

#include "runtime/schedule/schedule_text.hpp"
#include "runtime/schedule/wiring.hpp"

namespace lockstep {

namespace {

std::string list(const std::vector<Finding>& findings) {
  constexpr std::size_t kShown = 20;
  std::ostringstream out;
  for (std::size_t i = 0; i < std::min(findings.size(), kShown); ++i) {
    const Finding& finding = findings[i];
    out << "  ";
    if (finding.worker.valid()) out << "worker " << finding.worker;
    if (finding.position >= 0) out << " at " << finding.position;
    out << (finding.worker.valid() ? ", " : "") << finding.rule << ": " << finding.message << '\n';
  }
  if (findings.size() > kShown) out << "  and " << findings.size() - kShown << " more\n";
  return out.str();
}

/// `mark`: where the first finding with a position stands in `schedule`.
[[noreturn]] void refuse(const char* what, const Schedule& schedule, std::vector<Finding> findings,
                         const std::vector<Mark>& marks) {
  DrawOptions options;
  options.marks = marks;
  const std::string message =
      concat(what, " ", schedule.name, " cannot run: ", findings.size(),
             findings.size() == 1 ? " finding\n" : " findings\n", list(findings), draw(schedule, options));
  throw ScheduleError(message, std::move(findings));
}

bool accepted(const std::vector<Finding>& findings, Order order) {
  return std::all_of(findings.begin(), findings.end(),
                     [order](const Finding& finding) { return order == Order::any && !finding.fatal; });
}

const Finding* first_placed(const std::vector<Finding>& findings) {
  for (const Finding& finding : findings) {
    if (finding.worker.valid() && finding.position >= 0) return &finding;
  }
  return nullptr;
}

}  // namespace

void require_valid(const Schedule& schedule, Order order) {
  const std::vector<Finding> findings = validate(schedule);
  if (accepted(findings, order)) return;
  std::vector<Mark> marks;
  if (const Finding* first = first_placed(findings)) marks.push_back({first->worker, first->position, first->rule});
  refuse("schedule", schedule, findings, marks);
}

void require_valid(const Program& program, Order order) {
  const std::vector<Finding> findings = validate(program);
  if (accepted(findings, order)) return;
  std::vector<Mark> marks;
  if (const Finding* first = first_placed(findings)) {
    const std::vector<Instruction>& row = program.rows[index(first->worker)];
    const auto computes = std::count_if(row.begin(), row.begin() + first->position, [](const Instruction& instruction) {
      return instruction.kind == InstructionKind::compute;
    });
    marks.push_back({first->worker, static_cast<int>(computes), first->rule});
  }
  refuse("program", schedule_of(program), findings, marks);
}

std::string warning_of_order(const Schedule& schedule) {
  const std::vector<Finding> findings = validate(schedule);
  const auto of_order = [](const Finding& finding) { return !finding.fatal; };
  const auto first = std::find_if(findings.begin(), findings.end(), of_order);
  if (first == findings.end()) return "";
  return concat("schedule ", schedule.name, " sums gradients in an order of its own: ", first->message, " (",
                std::count_if(findings.begin(), findings.end(), of_order),
                " such places). It runs, but its bits differ from those of every other schedule");
}

}  // namespace lockstep
