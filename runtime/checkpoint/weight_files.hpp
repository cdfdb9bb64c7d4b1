// SPDX-License-Identifier: Apache-2.0
//
// Weights by name, whoever wrote them: a safetensors file, a folder with model.safetensors or with several files and
// their index (as Hugging Face's save_pretrained writes them), a checkpoint of ours, whose hashes are compared, or an
// adapter (adapter.hpp) and the base that it names. Headers are read at once, tensors when they are asked for.
#pragma once

#include <memory>

#include "runtime/checkpoint/store.hpp"

namespace lockstep {

/// Of a folder of weights, the files that belong to the model and are no weights, by name: its tokenizer's, and how it
/// is to generate. Whoever saves the model again saves them beside it, byte for byte. Empty where `folder` is none.
std::map<std::string, std::string> companion_files(const std::string& folder);

class WeightFiles {
 public:
  /// `base`: where that of an adapter is; empty: where it says. Throws CheckpointError when there are none, or they are
  /// damaged.
  explicit WeightFiles(std::string path, FileProgress progress = {}, const std::string& base = "");

  const std::string& path() const { return path_; }
  /// Where the weights are that an adapter leaves as they are: the base of an adapter's folder, else path().
  const std::string& base_path() const { return base_ ? base_->base_path() : path_; }
  /// Ascending.
  const std::vector<std::string>& names() const { return names_; }
  /// Null when there is none.
  const TensorEntry* find(const std::string& name) const;
  /// The path of the file that one is in.
  std::string file_of(const std::string& name) const;
  /// Fills `to`, which has the tensor's sizes. Floating-point numbers of another dtype are cast, a piece at a time.
  void read(const std::string& name, const at::Tensor& to);
  /// Whether two tensors have the same dtype, sizes and bytes.
  bool are_equal(const std::string& a, const std::string& b) const;

 private:
  struct Place {
    const SafetensorsFile* file;
    TensorEntry entry;
  };
  /// Under its name in the model, which a file of an adapter has with a prefix.
  void place(const std::string& name, Place tensor);
  void open(const std::string& file);
  void open_adapter(const std::string& base);
  void open_folder(const std::string& base);
  void open_indexed(const std::string& index);

  std::string path_;
  FileProgress progress_;
  std::unique_ptr<CheckpointStore> store_;  // of a checkpoint
  std::unique_ptr<WeightFiles> base_;       // of an adapter
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Place> places_;
  std::vector<std::string> names_;
};

}  // namespace lockstep
