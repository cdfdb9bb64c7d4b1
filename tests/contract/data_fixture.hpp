// SPDX-License-Identifier: Apache-2.0
//
// What the tests of readers share: files in a folder of their own, a set that is opened from text.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <fstream>
#include <numeric>

#include "runtime/data/dataset.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

namespace lockstep::test {

/// An own working folder, so that relative paths and whole messages are known.
class Folder {
 public:
  Folder() { std::filesystem::current_path(path()); }
  ~Folder() { std::filesystem::current_path(before_); }
  std::string path() const { return std::filesystem::canonical(folder_.path()); }

 private:
  std::filesystem::path before_ = std::filesystem::current_path();
  TemporaryFolder folder_;
};

inline void write_file(const std::string& path, const std::string& text) {
  if (const auto parent = std::filesystem::path(path).parent_path(); !parent.empty()) {
    std::filesystem::create_directories(parent);
  }
  std::ofstream(path, std::ios::binary) << text;
}

inline DataSplits open(const std::string& data, const DataContext& context = {}) {
  return open_data(load_config_text("data: {" + data + "}\n", "job.yaml").section("data"), context);
}

inline std::string error_of(const std::string& data, const DataContext& context = {}) {
  try {
    open(data, context);
  } catch (const UserError& error) {
    CHECK(error.exit_code() == ExitCode::user_input);
    return error.what();
  }
  return "no error";
}

template <typename T>
std::vector<T> values(const at::Tensor& tensor) {
  REQUIRE(tensor.is_contiguous());
  const T* first = tensor.const_data_ptr<T>();
  return {first, first + tensor.numel()};
}

inline std::vector<std::int64_t> all_of(const Dataset& data) {
  std::vector<std::int64_t> samples(static_cast<std::size_t>(data.size()));
  std::iota(samples.begin(), samples.end(), 0);
  return samples;
}

inline std::vector<std::string> entry_texts(const Dataset& data, std::int64_t rows) {
  std::vector<std::string> texts;
  for (const EntrySpec& entry : data.entries(rows)) {
    CHECK(entry.batched);
    CHECK_FALSE(entry.differentiable);
    texts.push_back(concat(entry.name, " ", c10::toString(entry.dtype), " [", join(entry.sizes), "]"));
  }
  return texts;
}

/// What read() gives is what entries() promised.
inline void check_keeps_its_word(const Dataset& data, const std::vector<std::int64_t>& samples) {
  const std::vector<EntrySpec> entries = data.entries(static_cast<std::int64_t>(samples.size()));
  const Tensors tensors = data.read(samples);
  REQUIRE(tensors.size() == entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    CHECK(tensors[i].sizes().vec() == entries[i].sizes);
    CHECK(tensors[i].scalar_type() == entries[i].dtype);
    CHECK(tensors[i].is_contiguous());
    CHECK(tensors[i].is_cpu());
  }
}

struct Bad {
  const char* data;
  std::string message;
};

}  // namespace lockstep::test
