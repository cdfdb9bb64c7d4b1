// SPDX-License-Identifier: Apache-2.0
//
// The files of one set as one table. Private to this folder.
#pragma once

#include <optional>
#include <set>

#include "runtime/data/table_file.hpp"

namespace lockstep {

/// The columns that a table is to have, and whose they are, for messages: "t.csv", "the training data of the
/// checkpoint".
struct KnownColumns {
  std::string whose;
  int count = 0;
  std::vector<std::string> names = {};  ///< empty: they have none
  bool are_csv = false;
  bool takes_more = false;  ///< what else the first file has by name comes behind these
};

/// Rows of the files, one after the other. Columns have the numbers that they have in the first file, or in the table
/// that is `known`: CSV files have the same columns in the same order, in all others they are found by their names.
class TableSplit {
 public:
  TableSplit(const std::vector<std::string>& paths, const TableFormat& format,
             const std::optional<KnownColumns>& known = {});

  const KnownColumns& columns() const { return columns_; }
  const std::string& first_path() const { return files_.front()->path(); }
  std::vector<DataFile> files() const;
  /// The name of a column, or its number where it has none of its own.
  std::string name_of(int column) const;
  /// Of the first file, by our numbers, or numbers where it has no names; empty where it lacks a column.
  std::vector<std::string> own_names() const;
  /// For messages: "column 'y'", "column 3 (from 0)".
  std::string title_of(int column) const;

  /// Reads the cells of these columns. Once.
  void read(const std::vector<WantedColumn>& columns);
  std::int64_t rows() const { return rows_; }
  /// The cells of a column that was read, until it is dropped.
  const ArrowChunks& cells(int column) const;
  void drop(int column) {
    if (!kept_.contains(column)) cells_.at(static_cast<std::size_t>(column)).reset();
  }
  /// Columns that are not dropped.
  void keep(const std::vector<int>& columns) { kept_.insert(columns.begin(), columns.end()); }
  std::vector<std::string> class_names(int column) const;
  std::vector<std::string> notes() const;

  std::string place_of(std::int64_t row) const;
  std::string advice_on_number(std::int64_t row, std::string_view cell) const;
  /// DataError: the place of the row, the column, the message.
  [[noreturn]] void fail(std::int64_t row, int column, const std::string& message) const;

 private:
  void add_columns(const std::vector<std::string>& names);
  void check_columns(const TableFile& file) const;
  /// The file's numbers of columns of ours; -1: it has none of this name.
  std::vector<WantedColumn> numbers_in(const TableFile& file, std::vector<WantedColumn> columns) const;
  std::pair<const TableFile*, std::int64_t> file_of(std::int64_t row) const;

  std::vector<std::unique_ptr<TableFile>> files_;
  std::vector<std::int64_t> first_rows_;
  KnownColumns columns_;
  std::vector<bool> has_own_name_;                 ///< by column
  std::vector<std::optional<ArrowChunks>> cells_;  ///< by column
  std::set<int> kept_;
  std::int64_t rows_ = 0;
};

}  // namespace lockstep
