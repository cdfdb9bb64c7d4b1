// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "runtime/base/error.hpp"
#include "runtime/base/output_file.hpp"
#include "runtime/base/text.hpp"
#include "runtime/schedule/schedule_text.hpp"

namespace lockstep {

namespace {

constexpr std::string_view kOverlap = "OVERLAP_F_B";
/// torch's Schedule1F1B and ScheduleGPipe end a row with it: sums over replicas, which lower() places by itself.
constexpr std::string_view kReduceGrad = "REDUCE_GRAD";

std::string_view trim(std::string_view text) {
  const auto is_blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

/// Takes what stands before the next separator; nothing is left when there is none.
std::string_view take_until(std::string_view& rest, char separator) {
  const std::size_t at = std::min(rest.find(separator), rest.size());
  const std::string_view taken = rest.substr(0, at);
  rest.remove_prefix(std::min(at + 1, rest.size()));
  return taken;
}

class CsvReader {
 public:
  explicit CsvReader(const std::string& name) { schedule_.name = name; }

  Schedule read(std::string_view text) {
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // spreadsheets put it in front
    if (text.substr(0, kByteOrderMark.size()) == kByteOrderMark) text.remove_prefix(kByteOrderMark.size());
    while (!text.empty() && (trim(text.substr(text.size() - 1)).empty() || text.back() == '\n')) text.remove_suffix(1);
    if (text.empty()) throw UserError(concat(schedule_.name, ": no actions; expected a row per worker, e.g. 0F0,0B0"));
    while (!text.empty()) {
      ++line_;
      read_row(take_until(text, '\n'));
    }
    check_numbers();
    return std::move(schedule_);
  }

 private:
  UserError error(const std::string& message) const {
    return UserError(concat(schedule_.name, ":", line_, ":", cell_, ": ", message));
  }

  void read_row(std::string_view rest) {
    schedule_.rows.emplace_back();
    for (cell_ = 1; !rest.empty(); ++cell_) read_cell(trim(take_until(rest, ',')));
    cell_ = 1;
    if (schedule_.rows.back().empty()) {
      throw error(concat("worker ", schedule_.rows.size() - 1, " has no actions; every row is a worker"));
    }
  }

  void read_cell(std::string_view cell) {
    if (cell.size() >= 2 && cell.front() == '"' && cell.back() == '"') cell = trim(cell.substr(1, cell.size() - 2));
    if (cell.empty() || cell.ends_with(kReduceGrad)) return;
    if (cell.front() != '(') {
      read_action(cell);
      return;
    }
    const std::size_t close = cell.find(')');
    const std::size_t middle = cell.find(';');
    if (close == std::string_view::npos || middle > close || cell.substr(close + 1) != kOverlap) {
      throw error(concat("bad cell '", one_line(std::string(cell), 40),
                         "'; expected an action like 0F0, or a pair like (0F3;3B1)", kOverlap));
    }
    const Action first = read_action(trim(cell.substr(1, middle - 1)));
    const Action second = read_action(trim(cell.substr(middle + 1, close - middle - 1)));
    schedule_.overlapped.emplace_back(first, second);
  }

  Action read_action(std::string_view text) {
    Action action;
    try {
      action = parse_action(text);
    } catch (const UserError& bad) {
      const bool communication =
          text.find('_') != std::string_view::npos || text.find("SHARD") != std::string_view::npos;
      throw error(concat(bad.what(), communication
                                         ? " (this looks like a file with communication; export the compute-only"
                                           " form: Lockstep places sends and receives itself)"
                                         : ""));
    }
    ++actions_;
    note(action.stage.value(), "stage", schedule_.stages, highest_stage_);
    note(action.micro_batch, "micro-batch", schedule_.micro_batches, highest_micro_batch_);
    schedule_.rows.back().push_back(action);
    return action;
  }

  void note(int value, const char* what, int& count, std::string& where) const {
    if (value < count) return;
    count = value < 1 << 30 ? value + 1 : value;
    where = concat(schedule_.name, ":", line_, ":", cell_, ": ", what, " ", value);
  }

  /// A typing error such as 1000000F0 must not cost memory for a million stages.
  void check_numbers() const {
    for (const auto& [count, where] :
         {std::pair(schedule_.stages, highest_stage_), std::pair(schedule_.micro_batches, highest_micro_batch_)}) {
      if (count <= actions_) continue;
      throw UserError(concat(where, " in a file of ", actions_, " actions: every stage and micro-batch needs its own"));
    }
  }

  Schedule schedule_;
  int line_ = 0, cell_ = 0;
  int actions_ = 0;
  std::string highest_stage_, highest_micro_batch_;
};

}  // namespace

Schedule parse_csv(std::string_view text, const std::string& name) {
  return CsvReader(name).read(text);
}

Schedule read_csv(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || (file.peek() != std::ifstream::traits_type::eof() && !(text << file.rdbuf()))) {
    throw UserError(concat(path, ": cannot read this schedule file"));
  }
  return parse_csv(text.str(), path);
}

std::string to_csv(const Schedule& schedule) {
  std::ostringstream out;
  const std::set<std::pair<Action, Action>> pairs(schedule.overlapped.begin(), schedule.overlapped.end());
  for (const std::vector<Action>& row : schedule.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) out << ',';
      if (i + 1 < row.size() && pairs.contains({row[i], row[i + 1]})) {
        out << '(' << to_text(row[i]) << ';' << to_text(row[i + 1]) << ')' << kOverlap;
        ++i;
      } else {
        out << to_text(row[i]);
      }
    }
    out << '\n';
  }
  return out.str();
}

void write_csv(const Schedule& schedule, const std::string& path) {
  write_whole_file(path, to_csv(schedule));
}

}  // namespace lockstep
