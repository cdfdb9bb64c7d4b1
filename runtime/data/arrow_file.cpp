// SPDX-License-Identifier: Apache-2.0
//
// Parquet, and Arrow's own files: with a footer ("Feather 2") and as a stream, which is what Hugging Face's datasets
// are on disk. Arrow's arrays lie in the mapped file, without a copy, unless their buffers are compressed.
#include <arrow/array.h>
#include <arrow/buffer.h>
#include <arrow/chunked_array.h>
#include <arrow/io/memory.h>
#include <arrow/ipc/reader.h>
#include <arrow/memory_pool.h>
#include <arrow/table.h>
#include <arrow/util/key_value_metadata.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#include <parquet/properties.h>

#include <nlohmann/json.hpp>

#include "runtime/data/arrow_status.hpp"
#include "runtime/data/table_file.hpp"

namespace lockstep {
namespace {

/// The names of classes of each column, as Hugging Face's datasets note them in the schema.
std::map<std::string, std::vector<std::string>> noted_classes(const arrow::Schema& schema) {
  std::map<std::string, std::vector<std::string>> classes;
  if (!schema.metadata() || !schema.metadata()->Contains("huggingface")) return classes;
  const auto note = nlohmann::json::parse(*schema.metadata()->Get("huggingface"), nullptr, false);
  const nlohmann::json::json_pointer place("/info/features");
  if (note.is_discarded() || !note.contains(place) || !note[place].is_object()) return classes;
  for (const auto& [name, feature] : note[place].items())
    if (feature.is_object() && feature.value("_type", nlohmann::json()) == "ClassLabel" && feature.contains("names") &&
        feature["names"].is_array())
      for (const auto& label : feature["names"])
        if (label.is_string()) classes[name].push_back(label);
  return classes;
}

class SchemaFile : public TableFile {
 public:
  std::vector<std::string> class_names(int column) const override {
    const auto found = classes_.find(names_.at(static_cast<std::size_t>(column)));
    return found == classes_.end() ? std::vector<std::string>() : found->second;
  }

 protected:
  using TableFile::TableFile;
  void take(const arrow::Schema& schema) {
    names_ = schema.field_names();
    columns_ = schema.num_fields();
    classes_ = noted_classes(schema);
    if (columns_ == 0) fail("got no columns, expected at least one");
  }

 private:
  std::map<std::string, std::vector<std::string>> classes_;
};

/// Parquet's library throws now and then.
template <typename Work>
auto guarded(const std::string& path, const Work& work) {
  try {
    return work();
  } catch (const parquet::ParquetException& error) {
    throw DataError(concat(path, ": cannot be read as a table: ", error.what()));
  }
}

class ParquetFile : public SchemaFile {
 public:
  ParquetFile(DataFile file, ArrowBytes bytes) : SchemaFile(std::move(file)) {
    guarded(path(), [&] {
      parquet::arrow::FileReaderBuilder builder;
      const parquet::ReaderProperties properties(arrow::system_memory_pool());
      arrow_done(path(), builder.Open(std::make_shared<arrow::io::BufferReader>(std::move(bytes)), properties));
      parquet::ArrowReaderProperties reading(/*use_threads=*/false);
      reading.set_pre_buffer(false);
      arrow_done(path(), builder.memory_pool(arrow::system_memory_pool())->properties(reading)->Build(&reader_));
      std::shared_ptr<arrow::Schema> schema;
      arrow_done(path(), reader_->GetSchema(&schema));
      take(*schema);
      rows_ = reader_->parquet_reader()->metadata()->num_rows();
    });
  }

  std::vector<ArrowChunks> read(const std::vector<WantedColumn>& columns) override {
    std::vector<ArrowChunks> cells;
    for (const auto& [column, as_text] : columns) {
      std::shared_ptr<arrow::ChunkedArray> chunked;
      guarded(path(), [&, number = column] { arrow_done(path(), reader_->ReadColumn(number, &chunked)); });
      // A damaged file's numbers need not agree.
      if (chunked->length() != rows_)
        fail(concat("cannot be read as a table: column ", column, " has ", chunked->length(), " rows, the file says ",
                    rows_));
      cells.push_back(chunked->chunks());
    }
    reader_.reset();
    return cells;
  }

 private:
  std::unique_ptr<parquet::arrow::FileReader> reader_;
};

class ArrowFile : public SchemaFile {
 public:
  ArrowFile(DataFile file, ArrowBytes bytes) : SchemaFile(std::move(file)) {
    auto options = arrow::ipc::IpcReadOptions::Defaults();
    options.use_threads = false;
    options.memory_pool = arrow::system_memory_pool();
    // Buffers that lie crooked, as in a damaged file or one of another writer, are copied.
    options.ensure_alignment = arrow::ipc::Alignment::kDataTypeSpecificAlignment;
    const auto in = std::make_shared<arrow::io::BufferReader>(bytes);
    constexpr std::string_view with_footer = "ARROW1";
    const bool is_stream =
        std::string_view(reinterpret_cast<const char*>(bytes->data()), static_cast<std::size_t>(bytes->size()))
            .substr(0, with_footer.size()) != with_footer;
    std::shared_ptr<arrow::Schema> schema;
    if (is_stream) {
      const auto reader = arrow_value(path(), arrow::ipc::RecordBatchStreamReader::Open(in, options));
      schema = reader->schema();
      while (true) {
        auto batch = arrow_value(path(), reader->Next());
        if (!batch) break;
        batches_.push_back(std::move(batch));
      }
    } else {
      const auto reader = arrow_value(path(), arrow::ipc::RecordBatchFileReader::Open(in, options));
      schema = reader->schema();
      for (int i = 0; i < reader->num_record_batches(); ++i)
        batches_.push_back(arrow_value(path(), reader->ReadRecordBatch(i)));
    }
    take(*schema);
    for (const auto& batch : batches_) rows_ += batch->num_rows();
  }

  std::vector<ArrowChunks> read(const std::vector<WantedColumn>& columns) override {
    std::vector<ArrowChunks> cells;
    for (const auto& [column, as_text] : columns)
      for (ArrowChunks& chunks = cells.emplace_back(); const auto& batch : batches_) {
        chunks.push_back(batch->column(column));
        arrow_done(path(), chunks.back()->ValidateFull());  // a damaged file has offsets that lead anywhere
      }
    batches_.clear();
    return cells;
  }

 private:
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches_;
};

}  // namespace

std::unique_ptr<TableFile> open_parquet_file(DataFile file, ArrowBytes bytes) {
  return std::make_unique<ParquetFile>(std::move(file), std::move(bytes));
}

std::unique_ptr<TableFile> open_arrow_file(DataFile file, ArrowBytes bytes) {
  return std::make_unique<ArrowFile>(std::move(file), std::move(bytes));
}

}  // namespace lockstep
