// SPDX-License-Identifier: Apache-2.0
//
// The cells of a column as numbers or as names. Private to this folder.
//
// A cell is missing when it is empty, NA, N/A, NaN, nan, null, NULL or None, as text of any format, a null of Arrow's,
// or a NaN. Spaces and tabs around a cell do not count. Dates are days since 1970-01-01.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/data/table_split.hpp"

namespace lockstep {

enum class ColumnKind { number, boolean, date, category };
const char* to_string(ColumnKind kind);
/// Throws DataError when there is none of this name.
ColumnKind column_kind(const std::string& name);

/// What a column is by itself. By its type; of text: numbers when any cell is one (then another text is a mistake in
/// it), else true and false, else dates when any cell is one, else categories.
ColumnKind kind_of(const TableSplit& split, int column);

/// NaN where a cell is missing. Throws DataError naming a cell that is no such thing, or not finite, or beyond float32;
/// `advice` ends the message about a text in place of a number.
std::vector<double> numbers_of(const TableSplit& split, int column, ColumnKind kind, const std::string& advice = "");

/// Cells as numbers of their values, which are in order of first appearance.
struct NamedCells {
  std::vector<std::int32_t> codes;  ///< by row; kMissing
  std::vector<std::string> values;
  static constexpr std::int32_t kMissing = -1;
  std::int64_t first_row_of(std::int32_t code) const;
};
/// Throws DataError naming the column when there are more than `most` values, or text that is not UTF-8.
NamedCells names_of(const TableSplit& split, int column, std::size_t most);

/// "an empty cell", "'NaN'", "a null", "'abc'".
std::string shown_cell(const TableSplit& split, int column, std::int64_t row);

/// A cell as it stands in the file; none: a null.
std::optional<std::string> text_of_cell(const TableSplit& split, int column, std::int64_t row);

/// For messages: the cell is missing, and that is not allowed.
[[noreturn]] void fail_missing(const TableSplit& split, int column, std::int64_t row, const char* expected,
                               const std::string& advice);

}  // namespace lockstep
