// SPDX-License-Identifier: Apache-2.0
//
// Schedule files, damaged, through all that reads them: parse, validate, lower in every mode, prove, simulate, draw.
// And the bytes of the control plane. A program that is proved must come to its end.
#include <algorithm>
#include <sstream>

#include "runtime/base/check.hpp"
#include "runtime/schedule/generators.hpp"
#include "runtime/schedule/lower.hpp"
#include "runtime/schedule/schedule_text.hpp"
#include "runtime/schedule/simulation.hpp"
#include "runtime/schedule/step_header.hpp"
#include "runtime/schedule/validate.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/test.hpp"

namespace lockstep::fuzz {
namespace {

std::vector<std::string> whole_files() {
  std::vector<std::string> files = {"0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n",
                                    "0F0,1F0,(0F1;1B0)OVERLAP_F_B,0B0,1F1,1B1,0B1\n",
                                    "0F0,,0F1,0I0,0W0,0I1,0W1\n,1F0,1I0,1F1,1W0,1I1,1W1\n"};
  for (const ScheduleGenerator& generator : schedule_generators())
    for (int workers = 1; workers <= 4; ++workers)
      for (const int micro_batches : {1, 2, 5}) {
        try {
          files.push_back(to_csv(make_schedule(generator.name, {workers, 1, micro_batches})));
        } catch (const ScheduleError&) {
          // a shape that this schedule has not
        }
      }
  return files;
}

/// Cells and rows change places, appear twice and vanish.
std::string shuffled(const std::string& text, Random& random) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::vector<std::string>& cells = rows.emplace_back();
    std::istringstream row(line);
    for (std::string cell; std::getline(row, cell, ',');) cells.push_back(cell);
    if (cells.empty()) rows.pop_back();
  }
  for (std::size_t changes = 1 + random.below(3); changes > 0 && !rows.empty(); --changes) {
    std::vector<std::string>& row = rows[random.below(rows.size())];
    if (row.empty()) continue;
    const std::size_t at = random.below(row.size());
    switch (random.below(6)) {
      case 0: row.erase(row.begin() + static_cast<std::ptrdiff_t>(at)); break;
      case 1: row.push_back(std::string(row[at])); break;
      case 2: std::swap(row[at], row[random.below(row.size())]); break;
      case 3: std::swap(row, rows[random.below(rows.size())]); break;
      case 4:
        row[at] = concat(random.below(5), random.any(std::vector<std::string>{"F", "B", "I", "W"}), random.below(6));
        break;
      case 5: {
        std::vector<std::string>& other = rows[random.below(rows.size())];
        if (!other.empty()) std::swap(row[at], other[random.below(other.size())]);
        break;
      }
    }
  }
  std::string result;
  for (const auto& row : rows) result += join(row, ",") + "\n";
  return result;
}

/// Runs all that a schedule file can meet. Returns "" or a broken promise; throws what the parts throw.
std::string use(const std::string& text) {
  const Schedule schedule = parse_csv(text, "fuzz.csv");
  const Topology chain = chain_topology(schedule.stages);
  for (const Mode mode : {Mode::train, Mode::evaluate, Mode::flush, Mode::stop})
    for (const bool clip : {false, true}) {
      bool proved = false;
      try {
        const Program program = lower(schedule, chain, {mode, clip});
        proved = validate(program).empty();
        simulate(program, equal_costs(schedule.stages, 1, 1, 1));
      } catch (const ScheduleError& error) {
        if (proved) return concat("proved, but it cannot run: ", error.what());
      }
    }
  draw(schedule);
  if (parse_csv(to_csv(schedule), "again.csv").rows != schedule.rows)
    return "written and read again it is another schedule";
  // As `simulate --schedule file:...` refuses it.
  require_valid(schedule);
  require_valid(lower(schedule, chain, {}));
  return "";
}

const std::vector<std::string>& cell_pieces() {
  static const std::vector<std::string> pieces = {",",
                                                  "\n",
                                                  "\r\n",
                                                  "0F0",
                                                  "1B1",
                                                  "2I0",
                                                  "0W1",
                                                  "99F0",
                                                  "0F99",
                                                  "2147483647F0",
                                                  "0F2147483648",
                                                  "-1F0",
                                                  "F",
                                                  "B",
                                                  "(",
                                                  ")",
                                                  "(0F1;0B0)OVERLAP_F_B",
                                                  "OVERLAP_F_B",
                                                  ";",
                                                  "\"",
                                                  " ",
                                                  "\t",
                                                  "0SEND_F1",
                                                  "UNSHARD",
                                                  "\xEF\xBB\xBF",
                                                  "1000000F0",
                                                  std::string(1, '\0'),
                                                  "\xFF",
                                                  "1e3"};
  return pieces;
}

}  // namespace

TEST_CASE("damaged schedule files run, or are refused with all that is wrong", "[fuzz]") {
  const std::vector<std::string> files = whole_files();
  for (const std::string& file : files) {
    INFO(file);
    REQUIRE(use(file) == "");
  }
  int good = 0, bad = 0;
  const std::string wrong = run_cases("schedule", 800, [&](Random& random, bool show) {
    std::string text = random.any(files);
    text = random.one_in(2) ? shuffled(text, random) : mutate_bytes(text, random, cell_pieces());
    std::string message, inside;
    const std::string verdict = judge_input([&] { inside = use(text); }, message, /*may_have_lines=*/true);
    (message.empty() ? good : bad) += 1;
    if (show) WARN(text << "\nmessage: " << message);
    return verdict.empty() ? inside : verdict;
  });
  CHECK(wrong == "");
  if (good + bad >= 200) {
    CHECK(good >= 10);
    CHECK(bad >= 100);
  }
}

namespace {

NonFinite some_finding(Random& random) {
  if (random.one_in(2)) return {};
  return {static_cast<int>(random.below(9)), static_cast<int>(random.below(9)), std::string(random.below(30), 'x')};
}

StepResult some_result(Random& random) {
  StepResult result;
  result.sequence = static_cast<std::int64_t>(random.bits());
  result.mode = static_cast<Mode>(random.below(4));
  result.heads.resize(random.below(3), {0.5, 2, 1});
  result.non_finite = some_finding(random);
  result.signalled = random.one_in(2);
  result.workers.resize(random.below(5));
  return result;
}

StepHeader some_header(Random& random) {
  StepHeader header;
  header.sequence = static_cast<std::int64_t>(random.bits());
  header.mode = static_cast<Mode>(random.below(4));
  header.slices.resize(random.below(9), 4);
  header.stop = static_cast<StopReason>(random.below(4));
  for (std::size_t results = random.below(3); results > 0; --results) header.finished.push_back(some_result(random));
  return header;
}

RowResult some_row(Random& random) {
  RowResult row;
  row.non_finite = some_finding(random);
  row.parameters.resize(random.below(9), 7);
  row.squared_norms.resize(row.parameters.size(), 0.25);
  return row;
}

/// Fields of 1, 2, 4 or 8 bytes get values of which counts and flags may go wrong.
std::string with_odd_field(std::string bytes, Random& random) {
  static const std::vector<std::uint64_t> values = {0,          1,          2,          3,          255,
                                                    256,        1ULL << 16, 1ULL << 31, 1ULL << 32, 1ULL << 33,
                                                    1ULL << 62, 1ULL << 63, ~0ULL,      ~0ULL - 7,  ~0ULL - 63};
  const std::size_t size = std::size_t{1} << random.below(4);
  if (bytes.size() < size) return bytes;
  const std::uint64_t value = random.one_in(3) ? random.bits() : random.any(values);
  const std::size_t at = random.below(bytes.size() - size + 1);
  for (std::size_t i = 0; i < size; ++i) bytes[at + i] = static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string damaged_bytes(std::string bytes, Random& random) {
  for (std::size_t changes = 1 + random.below(3); changes > 0; --changes)
    bytes = random.one_in(3) ? mutate_bytes(bytes, random, {"x", std::string(8, '\0')}) : with_odd_field(bytes, random);
  return bytes;
}

/// "" when `bytes` is read and written again as the same, or is an InternalError.
template <typename T>
std::string read_again(const std::string& bytes) {
  try {
    const std::string again = T::from_bytes(bytes).to_bytes();
    return again == bytes ? "" : "other bytes come back";
  } catch (const InternalError&) {
    return "";
  } catch (const std::exception& error) {
    return concat("not an InternalError: ", error.what());
  }
}

}  // namespace

TEST_CASE("damaged control messages are read as what they say, or are an internal error", "[fuzz]") {
  const std::string wrong = run_cases("control", 4000, [](Random& random, bool) {
    const std::string header = some_header(random).to_bytes(), row = some_row(random).to_bytes();
    std::string verdict = read_again<StepHeader>(damaged_bytes(header, random));
    if (verdict.empty()) verdict = read_again<RowResult>(damaged_bytes(row, random));
    if (verdict.empty()) verdict = read_again<RowResult>(header);
    return verdict;
  });
  CHECK(wrong == "");
}

}  // namespace lockstep::fuzz
