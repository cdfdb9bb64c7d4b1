// SPDX-License-Identifier: Apache-2.0
//
// One file of a table, whatever its format, as columns of Arrow arrays. Private to this folder.
//
// Arrow reads with no threads of its own, and allocates by malloc. A file that is not compressed is mapped, not copied:
// one that somebody else shortens meanwhile ends the process, as it does for every program that maps it.
#pragma once

#include <arrow/type_fwd.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/data/dataset.hpp"

namespace lockstep {

struct TableFormat {
  std::string format = "auto";  ///< auto | csv | parquet | arrow | jsonl
  std::string header = "auto";  ///< of CSV: auto | true | false
  char delimiter = ',';         ///< of CSV
  bool may_be_empty = false;    ///< columns without rows are no mistake
};

using ArrowChunks = std::vector<std::shared_ptr<arrow::Array>>;

struct WantedColumn {
  int column = 0;
  bool as_text = false;  ///< of CSV: as it stands there ("007")
};

/// Opened: its columns are known. All functions throw DataError that names the file.
class TableFile {
 public:
  virtual ~TableFile() = default;
  TableFile(const TableFile&) = delete;
  TableFile& operator=(const TableFile&) = delete;

  const std::string& path() const { return file_.path; }
  const DataFile& file() const { return file_; }
  /// Empty: columns have numbers only.
  const std::vector<std::string>& names() const { return names_; }
  int columns() const { return columns_; }
  /// Columns are known by their place in the file, as in CSV, and not by their names alone.
  virtual bool is_csv() const { return false; }

  /// The cells of these columns. Once. Of CSV they are bytes as they stand in the file, without quotes; a chunk of
  /// which every cell is a finite number that float32 can hold is numbers, unless the column is wanted as text.
  virtual std::vector<ArrowChunks> read(const std::vector<WantedColumn>& columns) = 0;
  /// Afterwards:
  std::int64_t rows() const { return rows_; }
  virtual std::string place_of(std::int64_t row) const;
  const std::vector<std::string>& notes() const { return notes_; }
  /// Of a column of class indices, where the file says: of Hugging Face's ClassLabel. Empty: it does not.
  virtual std::vector<std::string> class_names(int /*column*/) const { return {}; }
  /// Ends the message about a cell of this row that is no number; empty: nothing to say.
  virtual std::string advice_on_number(std::int64_t /*row*/, std::string_view cell) const;

 protected:
  explicit TableFile(DataFile file) : file_(std::move(file)) {}
  [[noreturn]] void fail(const std::string& message) const;
  void note(const std::string& text);

  DataFile file_;
  std::vector<std::string> names_, notes_;
  int columns_ = 0;
  std::int64_t rows_ = 0;
};

/// Opens a file of the format that `format` says, or that its first bytes and its name do; gzip and zstd are unpacked.
std::unique_ptr<TableFile> open_table_file(const std::string& path, const TableFormat& format);

// Of one format each; `bytes` are unpacked.
using ArrowBytes = std::shared_ptr<arrow::Buffer>;
std::unique_ptr<TableFile> open_csv_file(DataFile file, ArrowBytes bytes, const TableFormat& format);
std::unique_ptr<TableFile> open_jsonl_file(DataFile file, ArrowBytes bytes);
std::unique_ptr<TableFile> open_parquet_file(DataFile file, ArrowBytes bytes);
std::unique_ptr<TableFile> open_arrow_file(DataFile file, ArrowBytes bytes);

}  // namespace lockstep
