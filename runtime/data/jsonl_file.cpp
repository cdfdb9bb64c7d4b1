// SPDX-License-Identifier: Apache-2.0
//
// JSON lines: an object a line; keys are columns. Arrow reads them. When it cannot, the text is read again, line by
// line, for a message that names the line.
#include <arrow/array.h>
#include <arrow/buffer.h>
#include <arrow/chunked_array.h>
#include <arrow/io/memory.h>
#include <arrow/json/api.h>
#include <arrow/memory_pool.h>
#include <arrow/table.h>

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/data/arrow_status.hpp"
#include "runtime/data/csv_text.hpp"
#include "runtime/data/table_file.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::json;

/// A text as lines that are not blank.
class JsonLines {
 public:
  explicit JsonLines(std::string_view text) : rest_(text) {
    if (rest_.starts_with("\xef\xbb\xbf")) rest_.remove_prefix(3);
  }
  std::optional<std::string_view> next() {
    while (!rest_.empty()) {
      const std::size_t end = std::min(rest_.find('\n'), rest_.size());
      const std::string_view line = rest_.substr(0, end);
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
      ++number_;
      if (line.find_first_not_of(" \t\r") != std::string_view::npos) return line;
    }
    return std::nullopt;
  }
  std::int64_t number() const { return number_; }

 private:
  std::string_view rest_;
  std::int64_t number_ = 0;
};

/// "a number", "a string", ...
std::string kind_of(const Json& value) {
  if (value.is_number()) return "a number";
  if (value.is_boolean()) return "true or false";
  return concat(value.is_array() || value.is_object() ? "an " : "a ", value.type_name());
}

class JsonlFile : public TableFile {
 public:
  JsonlFile(DataFile file, ArrowBytes bytes) : TableFile(std::move(file)), bytes_(std::move(bytes)) { parse(); }

  std::vector<ArrowChunks> read(const std::vector<WantedColumn>& columns) override {
    std::vector<ArrowChunks> cells;
    for (const WantedColumn& wanted : columns) cells.push_back(table_->column(wanted.column)->chunks());
    table_.reset();
    return cells;
  }

  std::string place_of(std::int64_t row) const override {
    const auto at = static_cast<std::size_t>(row);
    if (at < lines_.size()) return concat(path(), ":", lines_[at]);
    return lines_.empty() ? concat(path(), ":", row + 1) : TableFile::place_of(row);
  }

 private:
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_->data()), static_cast<std::size_t>(bytes_->size())};
  }

  void parse() {
    std::int64_t longest = 0, rows = 0;
    JsonLines lines(text());
    while (const auto line = lines.next()) {
      longest = std::max(longest, static_cast<std::int64_t>(line->size()));
      ++rows;
      if (lines.number() != rows || !lines_.empty()) {
        if (lines_.empty())
          for (std::int32_t before = 1; before < rows; ++before) lines_.push_back(before);
        lines_.push_back(static_cast<std::int32_t>(lines.number()));
      }
    }
    if (rows == 0) fail("got no rows, expected a JSON object a line");
    auto reading = arrow::json::ReadOptions::Defaults();
    constexpr std::int64_t usual_block = 1 << 23, most_block = std::numeric_limits<std::int32_t>::max() - 1;
    reading.use_threads = false;
    reading.block_size = static_cast<std::int32_t>(std::clamp(2 * longest, usual_block, most_block));
    arrow::MemoryPool* pool = arrow::system_memory_pool();
    auto reader = arrow::json::TableReader::Make(pool, std::make_shared<arrow::io::BufferReader>(bytes_), reading,
                                                 arrow::json::ParseOptions::Defaults());
    auto table = reader.ok() ? (*reader)->Read() : arrow::Result<std::shared_ptr<arrow::Table>>(reader.status());
    if (!table.ok()) find_fault();
    table_ = arrow_value(path(), std::move(table));
    bytes_.reset();
    names_ = table_->ColumnNames();
    columns_ = table_->num_columns();
    rows_ = table_->num_rows();
    if (columns_ == 0) fail("got objects without keys, expected a key for each column");
  }

  [[noreturn]] void fail_at(std::int64_t line, const std::string& message) const {
    throw DataError(concat(path(), ":", line, ": ", message));
  }

  /// Throws unless it finds none.
  void find_fault() const {
    std::map<std::string, std::pair<std::string, std::int64_t>> kinds;  // by key: its kind, and the line of the first
    JsonLines lines(text());
    while (const auto line = lines.next()) {
      Json object;
      try {
        object = Json::parse(*line);
      } catch (const std::exception& error) {
        fail_at(lines.number(),
                concat("got ", in_quotes(*line), ", expected a JSON object on one line: ", reason_of(error)));
      }
      if (!object.is_object())
        fail_at(lines.number(), concat("got ", kind_of(object), ", expected a JSON object",
                                       object.is_array() ? "; of one array make lines: jq -c '.[]'" : ""));
      for (const auto& [key, value] : object.items()) {
        if (value.is_null()) continue;
        const auto [first, is_new] = kinds.try_emplace(key, kind_of(value), lines.number());
        if (!is_new && first->second.first != kind_of(value))
          fail_at(lines.number(), concat("column ", in_quotes(key), ": got ",
                                         in_quotes(value.dump(-1, ' ', false, Json::error_handler_t::replace)),
                                         ", expected ", first->second.first, " as in line ", first->second.second));
      }
    }
  }

  ArrowBytes bytes_;
  std::shared_ptr<arrow::Table> table_;
  std::vector<std::int32_t> lines_;  ///< by row, where they do not simply follow each other
};

}  // namespace

std::unique_ptr<TableFile> open_jsonl_file(DataFile file, ArrowBytes bytes) {
  return std::make_unique<JsonlFile>(std::move(file), std::move(bytes));
}

}  // namespace lockstep
