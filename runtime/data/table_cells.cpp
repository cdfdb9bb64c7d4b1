// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/table_cells.hpp"

#include <arrow/array.h>
#include <arrow/extension_type.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <arrow/util/decimal.h>
#include <arrow/util/utf8.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "runtime/base/check.hpp"
#include "runtime/data/arrow_status.hpp"
#include "runtime/data/csv_text.hpp"
#include "runtime/data/iso_date.hpp"

namespace lockstep {
namespace {

constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();
constexpr double kMostFloat = std::numeric_limits<float>::max();
constexpr std::array<const char*, 4> kKinds = {"number", "boolean", "date", "category"};

struct Cell {
  enum class Type { missing, number, text } type = Type::missing;
  double number = 0;
  std::string_view text = {};
};

double days_per(arrow::TimeUnit::type unit) {
  constexpr double seconds = 86400;
  switch (unit) {
    case arrow::TimeUnit::SECOND: return seconds;
    case arrow::TimeUnit::MILLI: return seconds * 1e3;
    case arrow::TimeUnit::MICRO: return seconds * 1e6;
    case arrow::TimeUnit::NANO: return seconds * 1e9;
  }
  return seconds;
}

template <typename Array, typename Use, typename Make>
void each(const arrow::Array& array, const Use& use, const Make& make) {
  const auto& cells = static_cast<const Array&>(array);
  for (std::int64_t i = 0; i < cells.length(); ++i) use(cells.IsNull(i) ? Cell{} : make(cells, i));
}

template <typename Array, typename Use>
void each_number(const arrow::Array& array, const Use& use, double divisor = 1) {
  each<Array>(array, use, [&](const Array& cells, std::int64_t i) {
    const auto number = static_cast<double>(cells.Value(i)) / divisor;
    return std::isnan(number) ? Cell{} : Cell{Cell::Type::number, number};
  });
}

template <typename Array, typename Use>
void each_text(const arrow::Array& array, const Use& use) {
  each<Array>(array, use, [](const Array& cells, std::int64_t i) {
    return Cell{Cell::Type::text, 0, cells.GetView(i)};
  });
}

template <typename Array, typename Decimal, typename Use>
void each_decimal(const arrow::Array& array, const Use& use) {
  const int scale = static_cast<const arrow::DecimalType&>(*array.type()).scale();
  each<Array>(array, use, [&](const Array& cells, std::int64_t i) {
    return Cell{Cell::Type::number, Decimal(cells.GetValue(i)).ToDouble(scale)};
  });
}

template <typename Use>
void each_cell(const arrow::Array& array, const Use& use);

/// A type of its own: a lambda would be another one in each instance of each_cell, without an end.
struct Collect {
  std::vector<Cell>* cells;
  void operator()(const Cell& cell) const { cells->push_back(cell); }
};

template <typename Use>
void each_of_dictionary(const arrow::Array& array, const Use& use) {
  const auto& cells = static_cast<const arrow::DictionaryArray&>(array);
  std::vector<Cell> values;
  each_cell(*cells.dictionary(), Collect{&values});
  for (std::int64_t i = 0; i < cells.length(); ++i)
    use(cells.IsNull(i) ? Cell{} : values.at(static_cast<std::size_t>(cells.GetValueIndex(i))));
}

template <typename Type>
double days_per_unit(const arrow::Array& array) {
  return days_per(static_cast<const Type&>(*array.type()).unit());
}

/// use(Cell) for every cell, in order.
template <typename Use>
void each_cell(const arrow::Array& array, const Use& use) {
  using arrow::Type;
  switch (int{array.type_id()}) {  // an int: the types that a table cannot have are the default
    case Type::NA:
      for (std::int64_t i = 0; i < array.length(); ++i) use(Cell{});
      return;
    case Type::BOOL: return each_number<arrow::BooleanArray>(array, use);
    case Type::INT8: return each_number<arrow::Int8Array>(array, use);
    case Type::INT16: return each_number<arrow::Int16Array>(array, use);
    case Type::INT32: return each_number<arrow::Int32Array>(array, use);
    case Type::INT64: return each_number<arrow::Int64Array>(array, use);
    case Type::UINT8: return each_number<arrow::UInt8Array>(array, use);
    case Type::UINT16: return each_number<arrow::UInt16Array>(array, use);
    case Type::UINT32: return each_number<arrow::UInt32Array>(array, use);
    case Type::UINT64: return each_number<arrow::UInt64Array>(array, use);
    case Type::FLOAT: return each_number<arrow::FloatArray>(array, use);
    case Type::DOUBLE: return each_number<arrow::DoubleArray>(array, use);
    case Type::HALF_FLOAT:
      return each<arrow::HalfFloatArray>(array, use, [](const arrow::HalfFloatArray& cells, std::int64_t i) {
        const double number = c10::Half(cells.Value(i), c10::Half::from_bits());
        return std::isnan(number) ? Cell{} : Cell{Cell::Type::number, number};
      });
    case Type::DECIMAL32: return each_decimal<arrow::Decimal32Array, arrow::Decimal32>(array, use);
    case Type::DECIMAL64: return each_decimal<arrow::Decimal64Array, arrow::Decimal64>(array, use);
    case Type::DECIMAL128: return each_decimal<arrow::Decimal128Array, arrow::Decimal128>(array, use);
    case Type::DECIMAL256: return each_decimal<arrow::Decimal256Array, arrow::Decimal256>(array, use);
    case Type::DATE32: return each_number<arrow::Date32Array>(array, use);
    case Type::DATE64: return each_number<arrow::Date64Array>(array, use, days_per(arrow::TimeUnit::MILLI));
    case Type::TIMESTAMP:
      return each_number<arrow::TimestampArray>(array, use, days_per_unit<arrow::TimestampType>(array));
    case Type::TIME32: return each_number<arrow::Time32Array>(array, use, days_per_unit<arrow::Time32Type>(array));
    case Type::TIME64: return each_number<arrow::Time64Array>(array, use, days_per_unit<arrow::Time64Type>(array));
    case Type::DURATION:
      return each_number<arrow::DurationArray>(array, use, days_per_unit<arrow::DurationType>(array));
    case Type::STRING: return each_text<arrow::StringArray>(array, use);
    case Type::LARGE_STRING: return each_text<arrow::LargeStringArray>(array, use);
    case Type::STRING_VIEW: return each_text<arrow::StringViewArray>(array, use);
    case Type::BINARY: return each_text<arrow::BinaryArray>(array, use);
    case Type::LARGE_BINARY: return each_text<arrow::LargeBinaryArray>(array, use);
    case Type::BINARY_VIEW: return each_text<arrow::BinaryViewArray>(array, use);
    case Type::DICTIONARY: return each_of_dictionary(array, use);
    case Type::EXTENSION: return each_cell(*static_cast<const arrow::ExtensionArray&>(array).storage(), use);
    default: LOCKSTEP_CHECK(false, "cells of the type ", array.type()->ToString());
  }
}

/// The type that counts: of the values of a dictionary, of what stands behind an extension.
const arrow::DataType& plain_type(const arrow::DataType& type) {
  if (type.id() == arrow::Type::DICTIONARY)
    return plain_type(*static_cast<const arrow::DictionaryType&>(type).value_type());
  if (type.id() == arrow::Type::EXTENSION)
    return plain_type(*static_cast<const arrow::ExtensionType&>(type).storage_type());
  return type;
}

enum class CellType { number, boolean, date, text, nothing, list, other };

CellType cell_type(const arrow::DataType& whole) {
  const arrow::DataType& type = plain_type(whole);
  const arrow::Type::type id = type.id();
  if (id == arrow::Type::NA) return CellType::nothing;
  if (id == arrow::Type::BOOL) return CellType::boolean;
  if (arrow::is_temporal(id) || id == arrow::Type::DURATION) return CellType::date;
  if (arrow::is_numeric(id) || arrow::is_decimal(id)) return CellType::number;
  if (arrow::is_base_binary_like(id) || arrow::is_binary_view_like(id)) return CellType::text;
  if (arrow::is_list_like(id)) return CellType::list;
  return CellType::other;
}

/// The type of the cells, text where any of them are; refuses what no column of numbers or names can be.
CellType checked_type(const TableSplit& split, int column) {
  CellType found = CellType::nothing;
  std::int64_t row = 0;
  for (const auto& chunk : split.cells(column)) {
    const CellType type = cell_type(*chunk->type());
    if (type == CellType::list)
      split.fail(row, column,
                 concat("got lists (", chunk->type()->ToString(),
                        "), expected single values; lists of token ids are read with tokens: ", split.name_of(column),
                        ", others leave out with ignore"));
    if (type == CellType::other)
      split.fail(
          row, column,
          concat(
              "got values of the type ", chunk->type()->ToString(),
              ", expected numbers, dates or text; leave it out with ignore, or make columns of its parts in Python"));
    if (found == CellType::nothing || type == CellType::text) found = type;
    row += chunk->length();
  }
  return found;
}

bool is_missing_word(std::string_view text) {
  constexpr std::array<std::string_view, 8> words = {"", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"};
  return text.size() <= 4 && std::find(words.begin(), words.end(), text) != words.end();
}

/// A comma in place of the point.
bool is_decimal_with_comma(std::string_view text) {
  return !text.starts_with('"') && *what_it_may_be(text) != '\0';
}

std::optional<double> truth_of(std::string_view text) {
  if (text == "true" || text == "True" || text == "TRUE") return 1;
  if (text == "false" || text == "False" || text == "FALSE") return 0;
  return std::nullopt;
}

/// One cell, as it stands there.
template <typename Use>
void one_cell(const TableSplit& split, int column, std::int64_t row, const Use& use) {
  for (const auto& chunk : split.cells(column)) {
    if (row < chunk->length()) return each_cell(*chunk->Slice(row, 1), use);
    row -= chunk->length();
  }
  LOCKSTEP_CHECK(false, "row ", row);
}

std::string text_of_number(double number) {
  std::array<char, 32> text = {};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), number).ptr;
  return {text.data(), end};
}

[[noreturn]] void fail_cell(const TableSplit& split, int column, std::int64_t row, const std::string& expected) {
  split.fail(row, column, concat("got ", shown_cell(split, column, row), ", expected ", expected));
}

/// A number that is what the table says; refuses what float32 cannot hold.
double checked(const TableSplit& split, int column, std::int64_t row, double number) {
  if (std::isinf(number)) fail_cell(split, column, row, "a finite number");
  if (std::abs(number) > kMostFloat) fail_cell(split, column, row, "a number that float32 can hold");
  return number;
}

double number_in(const TableSplit& split, int column, std::int64_t row, std::string_view cell,
                 const std::string& advice) {
  double number = 0;
  const auto result = read_number(cell, number);
  if (result.ptr == cell.data() + cell.size() && result.ec == std::errc::result_out_of_range)
    fail_cell(split, column, row, "a number that float32 can hold");
  if (result.ptr == cell.data() + cell.size() && result.ec == std::errc()) return number;
  if (is_missing_word(cell)) return kNoNumber;
  const std::string better = split.advice_on_number(row, cell);
  fail_cell(split, column, row, concat("a number", better.empty() ? advice : better));
}

template <typename Array>
bool append_values(const arrow::Array& array, std::vector<double>& numbers) {
  const auto* values = static_cast<const Array&>(array).raw_values();
  numbers.insert(numbers.end(), values, values + array.length());
  // NaN is a missing cell.
  return std::none_of(numbers.end() - array.length(), numbers.end(), [](double n) { return std::abs(n) > kMostFloat; });
}

/// The usual chunks in one go. False: nothing was appended, cell by cell is needed.
bool append_plain(const arrow::Array& array, std::vector<double>& numbers) {
  if (array.null_count() > 0) return false;
  const std::size_t before = numbers.size();
  const arrow::Type::type type = array.type_id();
  const bool done = type == arrow::Type::DOUBLE  ? append_values<arrow::DoubleArray>(array, numbers)
                    : type == arrow::Type::FLOAT ? append_values<arrow::FloatArray>(array, numbers)
                    : type == arrow::Type::INT64 ? append_values<arrow::Int64Array>(array, numbers)
                    : type == arrow::Type::INT32 ? append_values<arrow::Int32Array>(array, numbers)
                                                 : false;
  if (!done) numbers.resize(before);
  return done;
}

}  // namespace

const char* to_string(ColumnKind kind) {
  return kKinds.at(static_cast<std::size_t>(kind));
}

ColumnKind column_kind(const std::string& name) {
  const auto found = std::find(kKinds.begin(), kKinds.end(), name);
  if (found == kKinds.end()) throw DataError(concat("got '", name, "', expected a kind of column: ", join(kKinds)));
  return static_cast<ColumnKind>(found - kKinds.begin());
}

ColumnKind kind_of(const TableSplit& split, int column) {
  const CellType type = checked_type(split, column);
  if (type == CellType::boolean) return ColumnKind::boolean;
  if (type == CellType::date) return ColumnKind::date;
  if (type != CellType::text) return ColumnKind::number;
  bool any = false, is_number_column = false, all_truths = true, any_date = false;
  for (const auto& chunk : split.cells(column)) {
    // In slices, so that a column of numbers is not looked at whole.
    constexpr std::int64_t slice = 64;
    for (std::int64_t begin = 0; begin < chunk->length() && !is_number_column; begin += slice)
      each_cell(*chunk->Slice(begin, slice), [&](const Cell& cell) {
        if (cell.type == Cell::Type::missing || is_number_column) return;
        const std::string_view text = trimmed(cell.text);
        if (cell.type == Cell::Type::text && is_missing_word(text)) return;
        any = true;
        is_number_column = cell.type == Cell::Type::number || is_number(text) || is_decimal_with_comma(text);
        all_truths = all_truths && truth_of(text);
        any_date = any_date || iso_days(text);
      });
  }
  if (is_number_column || !any) return ColumnKind::number;
  if (all_truths) return ColumnKind::boolean;
  return any_date ? ColumnKind::date : ColumnKind::category;
}

std::vector<double> numbers_of(const TableSplit& split, int column, ColumnKind kind, const std::string& advice) {
  checked_type(split, column);
  std::vector<double> numbers;
  numbers.reserve(static_cast<std::size_t>(split.rows()));
  const auto row = [&] { return static_cast<std::int64_t>(numbers.size()); };
  const auto from_text = [&](std::string_view text) {
    if (kind == ColumnKind::number) return number_in(split, column, row(), text, advice);
    if (is_missing_word(text)) return kNoNumber;
    if (kind == ColumnKind::boolean) {
      if (const auto truth = truth_of(text)) return *truth;
      double number = 0;
      if (is_number(text) && read_number(text, number).ec == std::errc() && (number == 0 || number == 1)) return number;
      fail_cell(split, column, row(), "true or false");
    }
    if (const auto days = iso_days(text)) return *days;
    fail_cell(split, column, row(), "a date as 2024-02-29 or 2024-02-29T12:00:00");
  };
  for (const auto& chunk : split.cells(column))
    if (!append_plain(*chunk, numbers))
      each_cell(*chunk, [&](const Cell& cell) {
        if (cell.type == Cell::Type::missing)
          numbers.push_back(kNoNumber);
        else
          numbers.push_back(checked(split, column, row(),
                                    cell.type == Cell::Type::text ? from_text(trimmed(cell.text)) : cell.number));
      });
  return numbers;
}

std::int64_t NamedCells::first_row_of(std::int32_t code) const {
  return std::find(codes.begin(), codes.end(), code) - codes.begin();
}

NamedCells names_of(const TableSplit& split, int column, std::size_t most) {
  const CellType type = checked_type(split, column);
  NamedCells cells;
  cells.codes.reserve(static_cast<std::size_t>(split.rows()));
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> codes;
  std::string number;
  for (const auto& chunk : split.cells(column))
    each_cell(*chunk, [&](const Cell& cell) {
      std::string_view text = trimmed(cell.text);
      if (cell.type == Cell::Type::number) {
        number = type == CellType::boolean ? (cell.number != 0 ? "true" : "false") : text_of_number(cell.number);
        text = number;
      }
      if (cell.type == Cell::Type::missing || (cell.type == Cell::Type::text && is_missing_word(text))) {
        cells.codes.push_back(NamedCells::kMissing);
        return;
      }
      auto found = codes.find(text);
      if (found == codes.end()) {
        const auto row = static_cast<std::int64_t>(cells.codes.size());
        if (cells.values.size() == most)
          split.fail(row, column,
                     concat("got ", in_quotes(text), ", one of more than ", most, " different texts, expected at most ",
                            most, " categories; leave the column out with ignore, or group them before"));
        if (!arrow::util::ValidateUTF8(text)) fail_cell(split, column, row, "UTF-8; convert the file: iconv -t UTF-8");
        found = codes.emplace(text, static_cast<std::int32_t>(cells.values.size())).first;
        cells.values.emplace_back(text);
      }
      cells.codes.push_back(found->second);
    });
  return cells;
}

std::optional<std::string> text_of_cell(const TableSplit& split, int column, std::int64_t row) {
  for (const auto& chunk : split.cells(column)) {
    if (row >= chunk->length()) {
      row -= chunk->length();
      continue;
    }
    const auto scalar = arrow_value(split.first_path(), chunk->GetScalar(row));
    if (!scalar->is_valid) return std::nullopt;
    return scalar->ToString();
  }
  LOCKSTEP_CHECK(false, "row ", row);
}

std::string shown_cell(const TableSplit& split, int column, std::int64_t row) {
  std::string shown;
  one_cell(split, column, row, [&](const Cell& cell) {
    const std::string_view text = trimmed(cell.text);
    if (cell.type == Cell::Type::missing)
      shown = "no value (null)";
    else if (cell.type == Cell::Type::number)
      shown = concat("'", text_of_number(cell.number), "'");
    else
      shown = text.empty() ? "an empty cell" : in_quotes(text);
  });
  return shown;
}

void fail_missing(const TableSplit& split, int column, std::int64_t row, const char* expected,
                  const std::string& advice) {
  const std::string shown = shown_cell(split, column, row);
  const bool is_nan = shown.size() == 5 && (shown[1] == 'N' || shown[1] == 'n') && shown[2] == 'a';  // 'NaN'
  split.fail(row, column, concat("got ", shown, ", expected ", is_nan ? "a finite number" : expected, "; ", advice));
}

}  // namespace lockstep
