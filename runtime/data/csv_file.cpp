// SPDX-License-Identifier: Apache-2.0
//
// CSV: RFC 4180 with any delimiter. Arrow splits the text into cells; what they mean is decided later, by people's
// rules and with messages that name the line. Blank lines, a byte-order mark and "\r" at line ends are passed over.
// Names of columns are trimmed unless quoted. A line of another number of cells than the first is an error.
#include <ATen/Parallel.h>
#include <arrow/array.h>
#include <arrow/array/builder_binary.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/buffer.h>
#include <arrow/csv/options.h>
#include <arrow/csv/parser.h>
#include <arrow/memory_pool.h>

#include <algorithm>
#include <future>
#include <limits>

#include "runtime/data/arrow_status.hpp"
#include "runtime/data/csv_text.hpp"
#include "runtime/data/table_file.hpp"

namespace lockstep {
namespace {

std::string shown(char delimiter) {
  return delimiter == '\t' ? "\"\\t\"" : concat("'", delimiter, "'");
}

/// The longest line, in bytes, and how many there are.
struct LineSizes {
  std::int64_t longest = 0, count = 0;
};

LineSizes line_sizes(std::string_view text) {
  LineSizes sizes;
  for (std::size_t begin = 0; begin < text.size(); ++sizes.count) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    sizes.longest = std::max(sizes.longest, static_cast<std::int64_t>(end - begin));
    begin = end + 1;
  }
  return sizes;
}

class CsvFile : public TableFile {
 public:
  CsvFile(DataFile file, ArrowBytes bytes, const TableFormat& format)
      : TableFile(std::move(file)),
        bytes_(std::move(bytes)),
        text_(reinterpret_cast<const char*>(bytes_->data()), static_cast<std::size_t>(bytes_->size())),
        format_(format) {
    read_columns();
  }

  bool is_csv() const override { return true; }

  std::vector<ArrowChunks> read(const std::vector<WantedColumn>& columns) override {
    std::vector<WantedColumn> wanted = columns;
    if (doubt_.is_possible())  // it looks at the text of all columns
      for (int column = 0; column < columns_; ++column) wanted.push_back({column, true});
    std::vector<ArrowChunks> cells = split(wanted);
    if (doubt_.is_possible()) look_for_names(cells.data() + columns.size());
    cells.resize(columns.size());
    bytes_.reset();
    text_ = {};
    return cells;
  }

  std::string place_of(std::int64_t row) const override {
    const auto at = static_cast<std::size_t>(row);
    if (at < lines_.size()) return concat(path(), ":", lines_[at]);
    return lines_.empty() ? concat(path(), ":", first_line_ + row) : TableFile::place_of(row);
  }

  std::string advice_on_number(std::int64_t row, std::string_view cell) const override {
    if (row == 0 && first_line_ == 1 && format_.header != "true") return "; if line 1 holds names, write header: true";
    return TableFile::advice_on_number(row, cell);
  }

 private:
  void read_columns() {
    CsvRecords records(text_, format_.delimiter);
    const auto first = records.next();
    if (!first) fail("got an empty file, expected rows of numbers");
    check_closed(records);
    std::vector<std::string> cells = split_names(*first, format_.delimiter);
    if (cells.size() == 1) check_delimiter(*first, records.number());
    columns_ = static_cast<int>(cells.size());
    const bool header =
        format_.header == "true" || (format_.header == "auto" && std::none_of(cells.begin(), cells.end(), is_number));
    first_line_ = records.number();
    if (header) {
      names_ = std::move(cells);
      text_ = records.rest();
      records_before_ = records.lines();
      first_line_ = records.lines() + 1;
      return;
    }
    text_ = std::string_view(first->data(), static_cast<std::size_t>(text_.data() + text_.size() - first->data()));
    records_before_ = first_line_ - 1;
    shown_first_ = std::string(first->substr(0, 200));
    if (format_.header == "auto") doubt_ = HeaderDoubt(cells);
  }

  /// A line of one cell that another delimiter would split.
  void check_delimiter(std::string_view line, std::int64_t number) const {
    for (const char other : std::string_view(",;\t|"))
      if (other != format_.delimiter && line.find(other) != std::string_view::npos)
        throw DataError(concat(path(), ":", number, ": got a line without ", shown(format_.delimiter),
                               ", the delimiter, but with ", shown(other), "; write delimiter: ", shown(other)));
  }

  void check_closed(const CsvRecords& records) const {
    if (!records.unclosed()) return;
    throw DataError(concat(path(), ":", records.number(),
                           ": got a quote (\") that is not closed, expected another one; ",
                           "inside of quotes it is written twice"));
  }

  std::vector<ArrowChunks> split(const std::vector<WantedColumn>& columns) {
    const bool quoted = text_.find('"') != std::string_view::npos;
    LineSizes sizes = line_sizes(text_);
    if (quoted) find_lines(&sizes.longest);
    std::vector<ArrowChunks> cells(columns.size());
    for (Parsed& part : parse_all(columns, sizes.longest, quoted)) {
      rows_ += part.rows;
      for (std::size_t i = 0; i < columns.size(); ++i)
        cells[i].insert(cells[i].end(), part.cells[i].begin(), part.cells[i].end());
    }
    if (rows_ == 0 && !format_.may_be_empty) fail("got no rows, expected at least one");
    if (!quoted && rows_ != sizes.count) find_lines();
    return cells;
  }

  /// Some lines of the text.
  struct Parsed {
    std::vector<ArrowChunks> cells;  ///< by wanted column
    std::int64_t rows = 0;
    bool is_ragged = false;
  };

  /// A part of the text on each core, in order. Where a quote may hold a line end nobody knows where to cut.
  std::vector<Parsed> parse_all(const std::vector<WantedColumn>& columns, std::int64_t longest, bool quoted) const {
    constexpr std::size_t least_part = 1 << 20;
    const std::size_t most = quoted ? 1 : static_cast<std::size_t>(at::get_num_threads());
    const std::size_t parts = std::clamp<std::size_t>(text_.size() / least_part, 1, most);
    std::vector<std::size_t> cuts = {0};
    for (std::size_t part = 1; part < parts; ++part) {
      const std::size_t line_end = text_.find('\n', std::max(cuts.back(), part * text_.size() / parts));
      cuts.push_back(line_end == std::string_view::npos ? text_.size() : line_end + 1);
    }
    cuts.push_back(text_.size());
    const auto parse_part = [&](std::size_t part) {
      return parse(text_.substr(cuts[part], cuts[part + 1] - cuts[part]), columns, longest, quoted);
    };
    std::vector<std::future<Parsed>> elsewhere;
    for (std::size_t part = 1; part < parts; ++part)
      elsewhere.push_back(std::async(std::launch::async, parse_part, part));
    std::vector<Parsed> parsed;
    parsed.push_back(parse_part(0));
    for (std::future<Parsed>& part : elsewhere) parsed.push_back(part.get());
    for (const Parsed& part : parsed)
      if (part.is_ragged) fail_ragged();
    return parsed;
  }

  /// Block by block, each small enough for a cache.
  Parsed parse(std::string_view rest, const std::vector<WantedColumn>& columns, std::int64_t longest,
               bool quoted) const {
    Parsed parsed{std::vector<ArrowChunks>(columns.size())};
    auto options = arrow::csv::ParseOptions::Defaults();
    options.delimiter = format_.delimiter;
    options.newlines_in_values = quoted;
    options.invalid_row_handler = [&](const arrow::csv::InvalidRow& row) {
      const bool blank = is_blank(row.text, format_.delimiter);
      parsed.is_ragged |= !blank;
      return blank ? arrow::csv::InvalidRowResult::Skip : arrow::csv::InvalidRowResult::Error;
    };
    constexpr std::int64_t usual_block = 1 << 19, most_block = std::numeric_limits<std::int32_t>::max() - 1;
    const auto block = static_cast<std::size_t>(std::clamp(2 * longest + 2, usual_block, most_block));
    arrow::csv::BlockParser parser(arrow::default_memory_pool(), options, columns_);
    while (!rest.empty()) {
      std::uint32_t used = 0;
      const auto status =
          rest.size() <= block ? parser.ParseFinal(rest, &used) : parser.Parse(rest.substr(0, block), &used);
      if (parsed.is_ragged) return parsed;
      arrow_done(path(), status);
      if (used == 0) fail("got a line that is too long to be one of a table");
      for (std::size_t i = 0; i < columns.size() && parser.num_rows() > 0; ++i)
        parsed.cells[i].push_back(chunk_of(parser, columns[i]));
      parsed.rows += parser.num_rows();
      const bool cr = rest[used - 1] == '\r';
      rest.remove_prefix(used);
      if (cr && rest.starts_with('\n')) rest.remove_prefix(1);  // a line end across two blocks
    }
    return parsed;
  }

  std::shared_ptr<arrow::Array> chunk_of(const arrow::csv::BlockParser& parser, const WantedColumn& wanted) const {
    if (!wanted.as_text) {
      arrow::DoubleBuilder numbers(arrow::default_memory_pool());
      arrow_done(path(), numbers.Reserve(parser.num_rows()));
      const auto take = [&](const std::uint8_t* data, std::uint32_t size, auto... /*quoted*/) {
        double number = 0;
        if (!plain_number({reinterpret_cast<const char*>(data), size}, number)) return arrow::Status::Cancelled("");
        numbers.UnsafeAppend(number);
        return arrow::Status::OK();
      };
      if (parser.VisitColumn(wanted.column, take).ok()) return arrow_value(path(), numbers.Finish());
    }
    arrow::BinaryBuilder texts(arrow::default_memory_pool());
    arrow_done(path(), texts.Reserve(parser.num_rows()));
    arrow_done(path(), parser.VisitColumn(wanted.column, [&](const std::uint8_t* data, std::uint32_t size, auto...) {
      return texts.Append(data, static_cast<std::int32_t>(size));
    }));
    return arrow_value(path(), texts.Finish());
  }

  /// The line of every row; the longest row in bytes.
  void find_lines(std::int64_t* longest = nullptr) {
    lines_.clear();
    CsvRecords records(text_, format_.delimiter, records_before_);
    while (const auto record = records.next()) {
      check_closed(records);
      if (longest) *longest = std::max(*longest, static_cast<std::int64_t>(record->size()));
      lines_.push_back(static_cast<std::int32_t>(records.number()));
    }
  }

  [[noreturn]] void fail_ragged() const {
    CsvRecords records(text_, format_.delimiter, records_before_);
    while (const auto record = records.next()) {
      const std::size_t cells = split_names(*record, format_.delimiter).size();
      if (cells != static_cast<std::size_t>(columns_))
        throw DataError(concat(path(), ":", records.number(), ": got ", cells, " cells, expected ", columns_,
                               " as in the first line"));
    }
    fail(concat("got a row of another number of cells than ", columns_, ", as in the first line"));
  }

  /// `cells`: of all columns.
  void look_for_names(const ArrowChunks* cells) {
    for (int column = 0; column < columns_; ++column) {
      std::int64_t row = 0;
      for (const auto& chunk : cells[column]) {
        const auto& texts = static_cast<const arrow::BinaryArray&>(*chunk);
        for (std::int64_t i = 0; i < texts.length(); ++i, ++row) doubt_.look(row, column, trimmed(texts.GetView(i)));
      }
    }
    if (doubt_.is_doubtful())
      note(concat("the first line (", in_quotes(shown_first_),
                  ") is taken for a sample, but looks like names of columns: ",
                  "write header: true if it is, header: false if it is not"));
  }

  ArrowBytes bytes_;
  std::string_view text_;  ///< the rows
  TableFormat format_;
  std::int64_t records_before_ = 0;  ///< lines in front of text_
  std::int64_t first_line_ = 1;      ///< of the first row
  std::vector<std::int32_t> lines_;  ///< by row, where they do not simply follow each other
  std::string shown_first_;
  HeaderDoubt doubt_;
};

}  // namespace

std::unique_ptr<TableFile> open_csv_file(DataFile file, ArrowBytes bytes, const TableFormat& format) {
  return std::make_unique<CsvFile>(std::move(file), std::move(bytes), format);
}

}  // namespace lockstep
