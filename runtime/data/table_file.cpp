// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/table_file.hpp"

#include <arrow/buffer.h>
#include <arrow/io/compressed.h>
#include <arrow/io/file.h>
#include <arrow/io/memory.h>
#include <arrow/memory_pool.h>
#include <arrow/util/compression.h>
#include <sys/stat.h>

#include <algorithm>

#include "runtime/data/arrow_status.hpp"
#include "runtime/data/csv_text.hpp"
#include "runtime/data/input_files.hpp"

namespace lockstep {
namespace {

std::string_view text_of(const ArrowBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes->data()), static_cast<std::size_t>(bytes->size())};
}

/// The file's bytes: mapped where it can be.
ArrowBytes bytes_of(const std::string& path) {
  struct stat status = {};
  if (stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0) {
    const auto mapped = arrow::io::MemoryMappedFile::Open(path, arrow::io::FileMode::READ);
    if (mapped.ok()) return arrow_value(path, (*mapped)->ReadAt(0, status.st_size));
  }
  return arrow::Buffer::FromString(read_file(path));  // and says what is wrong
}

ArrowBytes unpacked(const std::string& path, const ArrowBytes& bytes, arrow::Compression::type compression,
                    const char* name) {
  arrow::MemoryPool* pool = arrow::system_memory_pool();
  const auto codec = arrow_value(path, arrow::util::Codec::Create(compression));
  const auto in = arrow_value(path, arrow::io::CompressedInputStream::Make(
                                        codec.get(), std::make_shared<arrow::io::BufferReader>(bytes), pool));
  constexpr std::int64_t block = 1 << 22;
  const auto out = arrow_value(path, arrow::io::BufferOutputStream::Create(4 * bytes->size() + block, pool));
  while (true) {
    const auto more = in->Read(block);
    if (!more.ok())
      throw DataError(concat(path, ": is damaged ", name, "-compressed data: ", more.status().message(), " after ",
                             arrow_value(path, out->Tell()), " unpacked bytes; copy or make the file again"));
    if ((*more)->size() == 0) return arrow_value(path, out->Finish());
    arrow_done(path, out->Write(*more));
  }
}

constexpr std::string_view kGzip = "\x1f\x8b", kZstd = "\x28\xb5\x2f\xfd", kParquet = "PAR1", kIpcFile = "ARROW1",
                           kIpcStream = "\xff\xff\xff\xff";

/// The name without what says that it is compressed.
bool has_ending(std::string path, const std::vector<const char*>& endings) {
  for (const char* packed : {".gz", ".zst", ".zstd"})
    if (path.ends_with(packed)) path.resize(path.rfind('.'));
  return std::any_of(endings.begin(), endings.end(), [&](const char* ending) { return path.ends_with(ending); });
}

std::string format_of(const std::string& path, std::string_view text) {
  if (text.starts_with(kParquet)) return "parquet";
  if (text.starts_with(kIpcFile) || text.starts_with(kIpcStream)) return "arrow";
  if (has_ending(path, {".csv", ".tsv", ".txt"})) return "csv";
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const bool object = first != std::string_view::npos && text[first] == '{';
  return object || has_ending(path, {".jsonl", ".ndjson", ".json"}) ? "jsonl" : "csv";
}

/// Nothing at all, where that may be.
class EmptyFile : public TableFile {
 public:
  explicit EmptyFile(DataFile file) : TableFile(std::move(file)) {}
  std::vector<ArrowChunks> read(const std::vector<WantedColumn>& columns) override {
    return std::vector<ArrowChunks>(columns.size());
  }
};

}  // namespace

std::unique_ptr<TableFile> open_table_file(const std::string& path, const TableFormat& format) {
  ArrowBytes bytes = bytes_of(path);
  DataFile file = data_file(path, text_of(bytes));
  if (bytes->size() == 0 && format.may_be_empty) return std::make_unique<EmptyFile>(std::move(file));
  if (text_of(bytes).starts_with(kGzip))
    bytes = unpacked(path, bytes, arrow::Compression::GZIP, "gzip");
  else if (text_of(bytes).starts_with(kZstd))
    bytes = unpacked(path, bytes, arrow::Compression::ZSTD, "zstd");
  const std::string_view text = text_of(bytes);
  const std::string which = format.format == "auto" ? format_of(path, text) : format.format;
  if (which == "parquet" || which == "arrow") {
    auto table = which == "parquet" ? open_parquet_file(std::move(file), std::move(bytes))
                                    : open_arrow_file(std::move(file), std::move(bytes));
    if (table->rows() < 1 && !format.may_be_empty)
      throw DataError(concat(path, ": got no rows, expected at least one"));
    return table;
  }
  if (const std::string foreign = foreign_format(text); !foreign.empty()) throw DataError(concat(path, ": ", foreign));
  return which == "jsonl" ? open_jsonl_file(std::move(file), std::move(bytes))
                          : open_csv_file(std::move(file), std::move(bytes), format);
}

std::string TableFile::place_of(std::int64_t row) const {
  return concat(path(), ": row ", row, " (from 0)");
}

std::string TableFile::advice_on_number(std::int64_t /*row*/, std::string_view cell) const {
  return what_it_may_be(cell);
}

void TableFile::fail(const std::string& message) const {
  throw DataError(concat(path(), ": ", message));
}

void TableFile::note(const std::string& text) {
  notes_.push_back(one_line(concat(path(), ": ", text)));
}

}  // namespace lockstep
