// SPDX-License-Identifier: Apache-2.0
//
// Recordings of runs that take exactly what their stages cost.
#pragma once

#include "runtime/observe/run_timeline.hpp"
#include "tests/unit/schedule_support.hpp"

namespace lockstep::test {

inline constexpr double kUptimeUs = 5e9;  // a clock that has been running for long

inline Instruction compute_of(const std::string& text) {
  Instruction what;
  what.action = parse_action(text);
  return what;
}

inline Instruction of_kind(InstructionKind kind) {
  Instruction what;
  what.kind = kind;
  return what;
}

inline Costs uneven_costs(const Program& program) {
  Costs costs = equal_costs(program.topology.stages, 0, 0, 0);
  for (std::size_t s = 0; s < costs.stages.size(); ++s) {
    costs.stages[s].forward_us = 100.0 + 20.0 * static_cast<double>(s);
    costs.stages[s].input_grad_us = 210.0 + 30.0 * static_cast<double>(s);
  }
  costs.update_us.assign(program.rows.size(), 50);
  return costs;
}

/// What workers that take exactly these times would have recorded.
inline Recorded fake_recording(const Program& program, const Costs& costs, int steps) {
  Recorded recorded;
  recorded.spans = simulate(program, costs, steps).timeline.spans;
  for (Span& span : recorded.spans) {
    span.start_us += kUptimeUs;
    span.end_us += kUptimeUs;
    if (span.what.kind == InstructionKind::compute) recorded.memory.push_back({span.worker, span.end_us, 4096});
  }
  return recorded;
}

inline RunTimeline small_run(int workers = 4, int micro_batches = 6, int steps = 2) {
  const Program program = lowered("1f1b", workers, micro_batches);
  std::optional<RunTimeline> run =
      measured_timeline(program, fake_recording(program, uneven_costs(program), steps), /*first_step=*/3);
  REQUIRE(run);
  run->name = "small <run> & \"friends\"";
  for (int s = 0; s < workers; ++s) run->layers.push_back(concat("layer.", s, " .. </script>"));
  return *run;
}

inline bool same_spans(const Timeline& a, const Timeline& b, double tolerance_us) {
  if (a.spans.size() != b.spans.size()) return false;
  for (std::size_t i = 0; i < a.spans.size(); ++i) {
    const Span &x = a.spans[i], &y = b.spans[i];
    if (x.worker != y.worker || x.step != y.step || x.what != y.what) return false;
    if (std::abs(x.start_us - y.start_us) > tolerance_us || std::abs(x.end_us - y.end_us) > tolerance_us) return false;
  }
  return true;
}

}  // namespace lockstep::test
