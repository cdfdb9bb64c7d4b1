// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/table_split.hpp"

#include <arrow/array.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/data/csv_text.hpp"

namespace lockstep {
namespace {

std::string shown(int count, const std::vector<std::string>& names) {
  return names.empty() ? concat(count, " columns") : concat(count, " columns (", join(names), ")");
}

}  // namespace

TableSplit::TableSplit(const std::vector<std::string>& paths, const TableFormat& format,
                       const std::optional<KnownColumns>& known) {
  if (known) columns_ = *known;
  for (const std::string& path : paths) {
    files_.push_back(open_table_file(path, format));
    const TableFile& file = *files_.back();
    if (columns_.count == 0) columns_ = {path, file.columns(), file.names(), file.is_csv()};
    if (std::exchange(columns_.takes_more, false)) add_columns(file.names());
    check_columns(file);
  }
  cells_.resize(static_cast<std::size_t>(columns_.count));
  std::unordered_map<std::string_view, int> count;
  for (const std::string& name : columns_.names) ++count[name];
  for (const std::string& name : columns_.names) has_own_name_.push_back(!name.empty() && count[name] == 1);
}

void TableSplit::add_columns(const std::vector<std::string>& names) {
  std::vector<std::string>& ours = columns_.names;
  for (const std::string& name : names)
    if (std::find(ours.begin(), ours.end(), name) == ours.end()) ours.push_back(name);
  columns_.count = static_cast<int>(ours.size());
}

void TableSplit::check_columns(const TableFile& file) const {
  if (file.columns() == 0) return;  // an empty file that may be one
  const bool both_named = !columns_.names.empty() && !file.names().empty();
  const bool by_name = both_named && !(columns_.are_csv && file.is_csv());
  if (by_name) return;  // what is missing is found when it is read
  if (file.columns() == columns_.count && (!both_named || file.names() == columns_.names)) return;
  throw DataError(concat(file.path(), ": got ", shown(file.columns(), file.names()), ", expected ",
                         shown(columns_.count, columns_.names), " as in ", columns_.whose));
}

std::vector<WantedColumn> TableSplit::numbers_in(const TableFile& file, std::vector<WantedColumn> columns) const {
  const std::vector<std::string>& theirs = file.names();
  if (columns_.names.empty() || theirs.empty() || theirs == columns_.names) return columns;
  std::unordered_map<std::string_view, int> numbers;
  for (std::size_t i = 0; i < theirs.size(); ++i) numbers.emplace(theirs[i], static_cast<int>(i));
  for (WantedColumn& wanted : columns) {
    const auto number = numbers.find(columns_.names[static_cast<std::size_t>(wanted.column)]);
    wanted.column = number == numbers.end() ? -1 : number->second;
  }
  return columns;
}

std::vector<DataFile> TableSplit::files() const {
  std::vector<DataFile> files;
  for (const auto& file : files_) files.push_back(file->file());
  return files;
}

std::string TableSplit::name_of(int column) const {
  const std::vector<std::string>& names = columns_.names;
  if (names.empty()) return concat(column);
  return has_own_name_[static_cast<std::size_t>(column)] ? names[static_cast<std::size_t>(column)] : concat(column);
}

std::vector<std::string> TableSplit::own_names() const {
  const std::vector<std::string>& theirs = files_.front()->names();
  std::vector<std::string> names;
  for (int column = 0; column < columns_.count; ++column) {
    names.push_back(name_of(column));
    if (theirs.empty() || columns_.names.empty()) continue;
    const std::string& ours = columns_.names[static_cast<std::size_t>(column)];
    if (std::find(theirs.begin(), theirs.end(), ours) == theirs.end()) names.back().clear();
  }
  return names;
}

std::string TableSplit::title_of(int column) const {
  return columns_.names.empty() ? concat("column ", column, " (from 0)")
                                : concat("column ", in_quotes(columns_.names[static_cast<std::size_t>(column)]));
}

void TableSplit::read(const std::vector<WantedColumn>& columns) {
  for (const WantedColumn& wanted : columns) cells_[static_cast<std::size_t>(wanted.column)].emplace();
  for (const auto& file : files_) {
    const std::vector<WantedColumn> numbers = numbers_in(*file, columns);
    for (std::size_t i = 0; i < columns.size(); ++i)
      if (numbers[i].column < 0)
        throw DataError(concat(file->path(), ": got no ", title_of(columns[i].column), " among its ",
                               shown(file->columns(), file->names()), ", expected it as in ", columns_.whose));
    std::vector<ArrowChunks> cells = file->read(numbers);
    for (std::size_t i = 0; i < columns.size(); ++i) {
      ArrowChunks& all = *cells_[static_cast<std::size_t>(columns[i].column)];
      std::int64_t rows = 0;
      for (auto& chunk : cells[i]) {
        rows += chunk->length();
        if (chunk->length() > 0) all.push_back(std::move(chunk));
      }
      LOCKSTEP_CHECK(rows == file->rows(), rows, " cells of ", file->rows(), " rows");
    }
    first_rows_.push_back(rows_);
    rows_ += file->rows();
  }
}

const ArrowChunks& TableSplit::cells(int column) const {
  const auto& cells = cells_.at(static_cast<std::size_t>(column));
  LOCKSTEP_CHECK(cells, "column ", column, " was not read");
  return *cells;
}

std::vector<std::string> TableSplit::class_names(int column) const {
  const int number = numbers_in(*files_.front(), {{column}}).front().column;
  return number < 0 ? std::vector<std::string>() : files_.front()->class_names(number);
}

std::vector<std::string> TableSplit::notes() const {
  std::vector<std::string> notes;
  for (const auto& file : files_) notes.insert(notes.end(), file->notes().begin(), file->notes().end());
  return notes;
}

std::pair<const TableFile*, std::int64_t> TableSplit::file_of(std::int64_t row) const {
  const auto behind = std::upper_bound(first_rows_.begin(), first_rows_.end(), row);
  const auto at = static_cast<std::size_t>(behind - first_rows_.begin()) - 1;
  return {files_[at].get(), row - first_rows_[at]};
}

std::string TableSplit::place_of(std::int64_t row) const {
  const auto [file, its_row] = file_of(row);
  return file->place_of(its_row);
}

std::string TableSplit::advice_on_number(std::int64_t row, std::string_view cell) const {
  const auto [file, its_row] = file_of(row);
  return file->advice_on_number(its_row, cell);
}

void TableSplit::fail(std::int64_t row, int column, const std::string& message) const {
  throw DataError(concat(place_of(row), ": ", title_of(column), ": ", message));
}

}  // namespace lockstep
