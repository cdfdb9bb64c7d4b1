// SPDX-License-Identifier: Apache-2.0
//
// Tables in every format, for tests: written by Arrow from JSON lines.
#pragma once

#include <arrow/api.h>
#include <arrow/io/api.h>
#include <arrow/ipc/api.h>
#include <arrow/json/api.h>
#include <arrow/util/compression.h>
#include <parquet/arrow/writer.h>

#include "tests/contract/data_fixture.hpp"

namespace lockstep::test {

using ArrowTable = std::shared_ptr<arrow::Table>;

/// Columns that `fields` names have its types, all others those that Arrow finds.
inline ArrowTable table_of(const std::string& json_lines, const arrow::FieldVector& fields = {}) {
  auto reading = arrow::json::ReadOptions::Defaults();
  reading.use_threads = false;
  auto parsing = arrow::json::ParseOptions::Defaults();
  if (!fields.empty()) parsing.explicit_schema = arrow::schema(fields);
  const auto in = std::make_shared<arrow::io::BufferReader>(arrow::Buffer::FromString(json_lines));
  const auto reader = arrow::json::TableReader::Make(arrow::default_memory_pool(), in, reading, parsing).ValueOrDie();
  return reader->Read().ValueOrDie();
}

inline void write_parquet(const std::string& path, const ArrowTable& table, std::int64_t rows_of_group = 1 << 20) {
  const auto out = arrow::io::FileOutputStream::Open(path).ValueOrDie();
  REQUIRE(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), out, rows_of_group).ok());
  REQUIRE(out->Close().ok());
}

/// `stream`: as Hugging Face's datasets write it.
inline void write_arrow(const std::string& path, const ArrowTable& table, bool stream,
                        std::int64_t rows_of_batch = 1 << 20) {
  const auto out = arrow::io::FileOutputStream::Open(path).ValueOrDie();
  const auto writer =
      (stream ? arrow::ipc::MakeStreamWriter(out, table->schema()) : arrow::ipc::MakeFileWriter(out, table->schema()))
          .ValueOrDie();
  REQUIRE(writer->WriteTable(*table, rows_of_batch).ok());
  REQUIRE(writer->Close().ok());
  REQUIRE(out->Close().ok());
}

inline void write_packed(const std::string& path, const std::string& text, arrow::Compression::type how) {
  const auto codec = arrow::util::Codec::Create(how).ValueOrDie();
  const auto file = arrow::io::FileOutputStream::Open(path).ValueOrDie();
  const auto out = arrow::io::CompressedOutputStream::Make(codec.get(), file).ValueOrDie();
  REQUIRE(out->Write(text).ok());
  REQUIRE(out->Close().ok());
}

/// x, row after row.
inline std::vector<float> x_of(const Dataset& data) {
  return values<float>(data.read(all_of(data))[0]);
}
inline std::vector<float> x_of(const std::string& section) {
  return x_of(*open(section).train);
}
template <typename T>
std::vector<T> targets_of(const Dataset& data) {
  return values<T>(data.read(all_of(data))[1]);
}

}  // namespace lockstep::test
