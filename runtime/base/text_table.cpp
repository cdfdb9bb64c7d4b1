// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/text_table.hpp"

#include <sys/ioctl.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

constexpr std::size_t kShortestNames = 8;

std::string cut(const std::string& text, std::size_t most) {
  return text.size() <= most ? text : text.substr(0, most - std::min<std::size_t>(most, 2)) + "..";
}

/// Between two numbers.
std::string cut_list(const std::string& text, std::size_t most) {
  if (text.size() <= most) return text;
  const std::size_t comma = text.rfind(", ", most - 4);
  return text.substr(0, comma == std::string::npos ? 0 : comma + 2) + "..";
}

using Row = std::vector<std::string>;
using Rows = std::vector<const std::vector<Cell>*>;

/// Rows that are one, as text.
Row folded(const std::vector<Column>& columns, const Rows& rows, std::size_t longest_list) {
  Row row;
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const auto by_value = [c](const auto* a, const auto* b) { return (*a)[c].value < (*b)[c].value; };
    const auto [least, most] = std::minmax_element(rows.begin(), rows.end(), by_value);
    std::string text = (*rows.front())[c].text;
    if (columns[c].kind == Column::Kind::list && rows.size() > 1) {
      std::vector<int> numbers;
      for (const auto* one : rows) numbers.push_back(static_cast<int>(std::lround((*one)[c].value)));
      std::sort(numbers.begin(), numbers.end());
      numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
      text = cut_list(ranges_text(numbers), longest_list);
    } else if (columns[c].kind == Column::Kind::range && (**least)[c].text != (**most)[c].text) {
      text = (**least)[c].text + ".." + (**most)[c].text;
    } else if (columns[c].kind == Column::Kind::names && rows.size() > 1) {
      text += ", ...";
    }
    row.push_back(text);
  }
  return row;
}

std::vector<Rows> groups_of(const std::vector<Column>& columns, const std::vector<std::vector<Cell>>& rows) {
  std::vector<Rows> groups;
  std::map<Row, std::size_t> known;
  for (const std::vector<Cell>& row : rows) {
    Row key;
    for (std::size_t c = 0; c < columns.size(); ++c)
      if (columns[c].kind == Column::Kind::same) key.push_back(row[c].text);
    const auto [group, is_new] = known.emplace(key, groups.size());
    if (is_new || rows.size() <= kUnfolded) groups.emplace_back();
    (rows.size() <= kUnfolded ? groups.back() : groups[group->second]).push_back(&row);
  }
  return groups;
}

}  // namespace

std::string table(const std::vector<Column>& columns, const std::vector<std::vector<Cell>>& rows, int width) {
  std::vector<Row> lines(1);
  for (const Column& column : columns) lines[0].push_back(column.title);
  const std::size_t longest_list = width < 80 ? 10 : 18;
  for (const Rows& group : groups_of(columns, rows)) lines.push_back(folded(columns, group, longest_list));

  std::vector<std::size_t> widths(columns.size(), 0);
  std::size_t all = 0;  // names at their shortest
  for (std::size_t c = 0; c < columns.size(); ++c) {
    for (const Row& line : lines) widths[c] = std::max(widths[c], line[c].size());
    if (columns[c].kind == Column::Kind::names) widths[c] = std::min(widths[c], kShortestNames);
    all += widths[c] + 2;
  }
  const std::size_t most = static_cast<std::size_t>(std::max(width, 1)) + 2;  // the first column has no gap before it
  std::vector<bool> shown(columns.size(), true);
  for (std::size_t c = columns.size(); c-- > 0 && all > most;)
    if (columns[c].may_go) shown[c] = false, all -= widths[c] + 2;
  const std::size_t left = all < most ? most - all : 0;

  std::string text;
  for (const Row& line : lines) {
    std::string shown_line;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      if (!shown[c]) continue;
      if (!shown_line.empty()) shown_line += "  ";
      if (columns[c].kind == Column::Kind::names)
        shown_line += cut(line[c], widths[c] + left);
      else
        shown_line += std::string(widths[c] - line[c].size(), ' ') + line[c];
    }
    text += shown_line + "\n";
  }
  return text;
}

std::string ranges_text(const std::vector<int>& numbers) {
  std::string text;
  for (std::size_t first = 0, last = 0; first < numbers.size(); first = last + 1) {
    last = first;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    text += concat(text.empty() ? "" : ", ", numbers[first]);
    if (last > first) text += concat(last == first + 1 ? ", " : "-", numbers[last]);
  }
  return text;
}

int columns_of_terminal(int file, int otherwise) {
  winsize size = {};
  return ioctl(file, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : otherwise;
}

}  // namespace lockstep
