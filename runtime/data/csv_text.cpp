// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/csv_text.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>

#include "runtime/base/error.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::from_chars_result read_number(std::string_view text, double& number) {
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);  // from_chars knows no plus
  return std::from_chars(text.data(), text.data() + text.size(), number);
}

bool is_number(std::string_view text) {
  double number = 0;
  const auto result = read_number(text, number);
  return result.ec != std::errc::invalid_argument && result.ptr == text.data() + text.size();
}

namespace {

/// Up to 15 digits with a point or without: a whole number below 2^53 over a power of ten, both exact in double, so one
/// division rounds correctly (Clinger, How to read floating point numbers accurately, PLDI 1990).
bool short_decimal(std::string_view text, double& number) {
  constexpr std::array<double, 16> power_of_ten = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                   1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  const char* at = text.data();
  const char* const end = at + text.size();
  const bool negative = at != end && *at == '-';
  if (negative) ++at;
  if (end - at > 16) return false;
  std::int64_t whole = 0;
  const auto take_digits = [&] {
    const char* const first = at;
    for (; at != end && static_cast<unsigned char>(*at - '0') < 10; ++at) whole = 10 * whole + (*at - '0');
    return static_cast<std::size_t>(at - first);
  };
  const std::size_t before = take_digits();
  std::size_t behind = 0;
  if (at != end && *at == '.') {
    ++at;
    behind = take_digits();
  }
  if (at != end || before + behind == 0 || before + behind > 15) return false;
  const auto magnitude = static_cast<double>(whole) / power_of_ten[behind];
  number = negative ? -magnitude : magnitude;
  return true;
}

}  // namespace

bool plain_number(std::string_view text, double& number) {
  if (short_decimal(text, number)) return true;
  text = trimmed(text);
  const auto result = read_number(text, number);
  return result.ec == std::errc() && result.ptr == text.data() + text.size() &&
         std::abs(number) <= std::numeric_limits<float>::max();
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 40;
  return concat("'", one_line(std::string(text), longest), "'");
}

const char* what_it_may_be(std::string_view cell) {
  if (cell.starts_with('"')) return "; numbers stand without quotes";
  const bool one_comma = std::count(cell.begin(), cell.end(), ',') == 1;
  std::string with_point(cell);
  std::replace(with_point.begin(), with_point.end(), ',', '.');
  return one_comma && is_number(with_point) ? "; decimals are written with a point" : "";
}

std::vector<std::string> split_names(std::string_view line, char delimiter) {
  std::vector<std::string> names;
  std::string name;
  bool inside = false;
  bool was_quoted = false;
  const auto end_name = [&] {
    names.emplace_back(was_quoted ? name : std::string(trimmed(name)));
    name.clear();
    was_quoted = false;
  };
  for (std::size_t i = 0; i < line.size(); ++i) {
    const bool quote = line[i] == '"';
    if (inside && quote && i + 1 < line.size() && line[i + 1] == '"') {
      name += line[i++];
    } else if (inside) {
      if (quote)
        inside = false;
      else
        name += line[i];
    } else if (quote && trimmed(name).empty()) {
      inside = was_quoted = true;
      name.clear();
    } else if (line[i] == delimiter) {
      end_name();
    } else if (!was_quoted) {
      name += line[i];
    }
  }
  end_name();
  return names;
}

bool is_blank(std::string_view line, char delimiter) {
  return std::all_of(line.begin(), line.end(), [&](char c) { return (c == ' ' || c == '\t') && c != delimiter; });
}

CsvRecords::CsvRecords(std::string_view text, char delimiter, std::int64_t lines)
    : rest_(text), delimiter_(delimiter), lines_(lines) {
  if (rest_.starts_with("\xef\xbb\xbf")) rest_.remove_prefix(3);
}

std::optional<std::string_view> CsvRecords::next() {
  while (!rest_.empty()) {
    number_ = lines_ + 1;
    const std::size_t end = end_of_record();
    const std::string_view record = rest_.substr(0, end);
    const bool crlf = rest_.substr(end).starts_with("\r\n");
    rest_.remove_prefix(std::min(end + (crlf ? 2 : 1), rest_.size()));
    ++lines_;
    if (!is_blank(record, delimiter_)) return record;
  }
  return std::nullopt;
}

std::size_t CsvRecords::end_of_record() {
  bool inside = false, begins = true;  // of quotes; of a cell
  for (std::size_t i = 0; i < rest_.size(); ++i) {
    const char c = rest_[i];
    if (inside) {
      if (c == '\n') ++lines_;
      if (c != '"') continue;
      if (i + 1 < rest_.size() && rest_[i + 1] == '"')
        ++i;
      else
        inside = false;
    } else if (c == '\n' || c == '\r') {
      return i;
    } else {
      inside = c == '"' && begins;
      begins = c == delimiter_;
    }
  }
  unclosed_ = inside;
  return rest_.size();
}

namespace {

std::optional<std::int64_t> whole_number(const std::string& cell) {
  std::int64_t number = 0;
  const auto result = std::from_chars(cell.data(), cell.data() + cell.size(), number);
  if (result.ec != std::errc() || result.ptr != cell.data() + cell.size()) return std::nullopt;
  return number;
}

/// Three whole numbers or more with one step, which is not 0.
bool has_equal_steps(const std::vector<std::string>& cells) {
  std::vector<double> numbers;
  for (const std::string& cell : cells) {
    const auto number = whole_number(cell);
    if (!number) return false;
    numbers.push_back(static_cast<double>(*number));
  }
  if (numbers.size() < 3) return false;
  const double step = numbers[1] - numbers[0];
  for (std::size_t i = 2; i < numbers.size(); ++i)
    if (numbers[i] - numbers[i - 1] != step) return false;
  return step != 0;
}

}  // namespace

HeaderDoubt::HeaderDoubt(const std::vector<std::string>& first_line) {
  std::set<std::string> different(first_line.begin(), first_line.end());
  possible_ = different.size() == first_line.size() &&
              std::all_of(first_line.begin(), first_line.end(), [](const auto& cell) { return whole_number(cell); });
  regular_ = has_equal_steps(first_line);
  if (possible_) decimals_.assign(first_line.size(), true);
}

void HeaderDoubt::look(std::int64_t row, int column, std::string_view cell) {
  if (!possible_ || row == 0) return;
  if (row == 1) second_line_.emplace_back(cell);
  const auto at = static_cast<std::size_t>(column);
  if (decimals_[at]) decimals_[at] = cell.find_first_of(".eE") != std::string_view::npos;
}

bool HeaderDoubt::is_doubtful() const {
  if (!possible_ || second_line_.empty()) return false;
  const bool over_decimals = std::find(decimals_.begin(), decimals_.end(), true) != decimals_.end();
  return over_decimals || (regular_ && !has_equal_steps(second_line_));
}

}  // namespace lockstep
