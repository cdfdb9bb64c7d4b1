// SPDX-License-Identifier: Apache-2.0
//
// CSV as text: records, cells, numbers, and what a first line of numbers may really be. Private to this folder.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep {

/// Without spaces and tabs at its ends.
std::string_view trimmed(std::string_view text);

/// As std::from_chars, which knows no plus in front.
std::from_chars_result read_number(std::string_view text, double& number);
bool is_number(std::string_view text);
/// A finite number that float32 can hold, with spaces and tabs around it or not: the same bits as read_number(),
/// sooner. False: it is something else.
bool plain_number(std::string_view text, double& number);

/// What a message shows of a cell: short, on one line.
std::string in_quotes(std::string_view text);

/// The end of a message about a cell that is no number: what it may have been meant to be.
const char* what_it_may_be(std::string_view cell);

/// The cells of a line of names. They may stand in double quotes, then hold the delimiter, and "" for a quote (RFC
/// 4180, without line breaks).
std::vector<std::string> split_names(std::string_view line, char delimiter);

/// Spaces and tabs alone, none of which is the delimiter.
bool is_blank(std::string_view line, char delimiter);

/// A text as records, which are lines unless a quoted cell holds a line break; blank ones and a byte-order mark are
/// passed over. As Arrow splits it: a quote opens at the beginning of a cell only, and CR alone ends a line too.
class CsvRecords {
 public:
  /// `lines`: how many are in front of `text`.
  CsvRecords(std::string_view text, char delimiter, std::int64_t lines = 0);
  /// Without its line end.
  std::optional<std::string_view> next();
  /// The line on which the last one began, from 1.
  std::int64_t number() const { return number_; }
  /// Whether the last one ended with the text inside of quotes.
  bool unclosed() const { return unclosed_; }
  /// What is behind it, and the lines in front of that.
  std::string_view rest() const { return rest_; }
  std::int64_t lines() const { return lines_; }

 private:
  std::size_t end_of_record();

  std::string_view rest_;
  char delimiter_;
  std::int64_t lines_, number_ = 0;
  bool unclosed_ = false;
};

/// Whether a first line of numbers that is taken for a sample looks like names (pandas numbers columns without names
/// 0, 1, 2, ...; years are names too): whole numbers, all different, which either have equal steps where the second
/// line has not, or stand over a column that is written with decimals in every other row.
class HeaderDoubt {
 public:
  HeaderDoubt() = default;
  explicit HeaderDoubt(const std::vector<std::string>& first_line);
  /// A cell of row `row`, counted from the first line (0), which need not be shown. Of every column, each from the top.
  void look(std::int64_t row, int column, std::string_view cell);
  /// Whether there is anything to look at.
  bool is_possible() const { return possible_; }
  /// After all rows.
  bool is_doubtful() const;

 private:
  bool possible_ = false;  ///< the first line alone
  bool regular_ = false;
  std::vector<std::string> second_line_;
  std::vector<bool> decimals_;  ///< by column: in every row but the first
};

}  // namespace lockstep
