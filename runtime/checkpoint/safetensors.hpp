// SPDX-License-Identifier: Apache-2.0
//
// One safetensors file (https://huggingface.co/docs/safetensors): 8 bytes little-endian length of the header; the
// header, JSON, {name: {dtype, shape, data_offsets: [begin, end)}}; then the tensors, row by row, little-endian.
//
// Reading trusts nothing: a file that does not keep the format is a CheckpointError that names file, tensor and offset,
// and what a header claims costs no memory before it is known to be in the file. Thread: a file may be read from
// several.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "runtime/checkpoint/checkpoint_error.hpp"
#include "runtime/checkpoint/durable_files.hpp"

namespace lockstep {

struct TensorEntry {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<std::int64_t> sizes;
  std::int64_t begin = 0, end = 0;  ///< bytes from the beginning of the file
};

/// "F32 [4, 128]"
std::string to_string(const TensorEntry& entry);

class SafetensorsFile {
 public:
  /// Reads and checks the header: names once, known dtypes, sizes and offsets that agree, no overlap, no hole, no end
  /// behind the file's.
  explicit SafetensorsFile(const std::string& path, const FileProgress& progress = {});

  const std::vector<TensorEntry>& entries() const { return entries_; }  ///< in the order of their bytes
  const TensorEntry* find(const std::string& name) const;               ///< null when there is none
  const std::string& header() const { return header_; }
  std::int64_t size() const { return size_; }
  const File& file() const { return file_; }
  const std::string& path() const { return file_.path(); }

  /// Reads a tensor's bytes into `to`, which has its dtype and sizes (else CheckpointError that says both). On other
  /// devices through the host. Contiguous.
  void read(const TensorEntry& entry, const at::Tensor& to) const;

 private:
  void parse();

  File file_;
  std::int64_t size_ = 0;
  std::string header_;
  std::vector<TensorEntry> entries_;
  std::map<std::string, std::size_t> index_;
};

/// What is wrong with a tensor of a file that should have this hash; empty: nothing.
std::string damage_of(const at::Tensor& tensor, std::uint64_t expected);

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
  bool may_be_infinite = false;  ///< a buffer, such as a mask, or a parameter that is not trained
};

/// What was written, for the manifest.
struct WrittenFile {
  std::string name;  ///< without the folder
  std::int64_t bytes = 0;
  std::uint64_t header_hash = 0;
  std::map<std::string, std::uint64_t> tensors;  ///< hash_of() of each
  /// The first element that is not finite: "fc.0.weight[3, 5] is nan"; empty: there is none. It was written all the
  /// same.
  std::string not_finite = {};
};

/// Writes the tensors (contiguous; of any device) and waits until they are on the disk. Larger elements first, so that
/// all of them are aligned. Throws Error.
WrittenFile write_safetensors(const std::string& folder, const std::string& name,
                              const std::vector<NamedTensor>& tensors, const FileProgress& progress = {});

}  // namespace lockstep
