// SPDX-License-Identifier: Apache-2.0
//
// The recorded timeline of a real run: the program's computes, in its order, on one clock.
#include <map>

#include "tests/parity/support.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

RunOptions recording(std::int64_t first, int steps) {
  RunOptions options;
  options.record.first = first;
  options.record.steps = steps;
  return options;
}

Config config_of(int stages, const std::string& schedule) {
  return with_pipeline(small_config("sparse_categorical_cross_entropy", 8, 4), stages, schedule);
}

std::map<std::pair<WorkerId, int>, std::vector<Span>> by_worker_and_step(const Recorded& recorded) {
  std::map<std::pair<WorkerId, int>, std::vector<Span>> result;
  for (const Span& span : recorded.spans) result[{span.worker, span.step}].push_back(span);
  return result;
}

}  // namespace

TEST_CASE("a recorded timeline has exactly the program's computes, in the program's order, without overlap",
          "[parity]") {
  for (const char* schedule : {"gpipe", "1f1b"})
    for (const int stages : {1, 2, 4}) {
      INFO(schedule << ", " << stages << " stages");
      // An evaluation lies between the steps 2 and 3.
      Trainer trainer(small_gpt(3, 0.1, true), token_data(21, 8, 11), config_of(stages, schedule));
      const JobOutcome outcome = trainer.fit(recording(2, 3));
      // 21 samples in batches of 8: step 3 has 5 rows, in slices of 2, 2 and 1.
      const auto expected = [&](int step) {
        return schedule_of(trainer.programs().get(Mode::train, step == 1 ? 3 : 4)).rows;
      };
      const auto runs = by_worker_and_step(outcome.recorded);
      CHECK(runs.size() == static_cast<std::size_t>(3 * stages));
      CHECK_FALSE(outcome.recorded.cut);
      std::map<WorkerId, double> free_us;
      for (const auto& [key, spans] : runs) {
        std::vector<std::string> computes, row;
        const auto rows = expected(key.second);
        for (const Action& action : rows[static_cast<std::size_t>(key.first.value())]) row.push_back(to_text(action));
        int updates = 0;
        for (const Span& span : spans) {
          CHECK(span.start_us >= free_us[span.worker]);  // also waits: one worker does one thing at a time
          CHECK(span.end_us >= span.start_us);
          free_us[span.worker] = span.end_us;
          if (span.what.kind == InstructionKind::compute) computes.push_back(to_text(span.what.action));
          updates += span.what.kind == InstructionKind::update ? 1 : 0;
        }
        CHECK(computes == row);
        CHECK(updates == 1);
      }
      std::size_t expected_samples = 0;
      for (const int step : {0, 1, 2})
        for (const auto rows = expected(step); const std::vector<Action>& row : rows) expected_samples += row.size();
      CHECK(outcome.recorded.memory.size() == expected_samples);
      for (const MemorySample& sample : outcome.recorded.memory) CHECK(sample.bytes > 0);
    }
}

TEST_CASE("no compute is recorded as begun before the computes that it needs have ended", "[parity]") {
  Trainer trainer(small_gpt(3, 0.1, true), token_data(21, 8, 11), config_of(4, "1f1b"));
  const JobOutcome outcome = trainer.fit(recording(1, 5));
  const StageGraph graph = stage_graph(trainer.partition().topology);
  std::map<std::pair<int, Action>, double> ended_us;
  for (const Span& span : outcome.recorded.spans) {
    if (span.what.kind != InstructionKind::compute) continue;
    Action action = span.what.action;
    if (action.op == Op::backward) action.op = Op::input_grad;  // B stands for I
    ended_us[{span.step, action}] = span.end_us;
  }
  int compared = 0;
  for (const Span& span : outcome.recorded.spans) {
    if (span.what.kind != InstructionKind::compute) continue;
    for (const Action& needed : required_before(span.what.action, graph)) {
      CHECK(ended_us.at({span.step, needed}) <= span.start_us);
      ++compared;
    }
  }
  CHECK(compared > 5 * 4 * 4);
}

TEST_CASE("recording changes no bit, and what is not asked for is not recorded", "[parity]") {
  const auto hashes = [](const RunOptions& options, std::size_t* spans) {
    Trainer trainer(small_gpt(3, 0.1, true), token_data(21, 8, 11), config_of(3, "1f1b"));
    const JobOutcome outcome = trainer.fit(options);
    *spans = outcome.recorded.spans.size();
    std::vector<std::uint64_t> result;
    for (const FinalParameter& parameter : outcome.parameters) result.push_back(parameter.hash);
    return result;
  };
  std::size_t plain = 1, recorded = 0, beyond = 1;
  const auto expected = hashes({}, &plain);
  CHECK(hashes(recording(1, 5), &recorded) == expected);
  CHECK(hashes(recording(6, 2), &beyond) == expected);
  CHECK(plain == 0);
  CHECK(recorded > 0);
  CHECK(beyond == 0);
}
