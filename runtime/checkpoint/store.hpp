// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint's tensors by name, whoever wrote them: a worker reads what it holds and nothing else, so any number of
// workers can go on from any checkpoint.
#pragma once

#include <memory>
#include <optional>

#include "runtime/base/element_range.hpp"
#include "runtime/checkpoint/manifest.hpp"

namespace lockstep {

enum class TensorKind { weight, optimizer };

/// Optimizer state whose parts belong to several workers is written in parts, each a flat tensor of its worker's file:
/// "fc.0.weight.exp_avg[65536:131072]". So are tables whose rows several servers have, and their optimizer state, each
/// part with its rows.
std::string name_of_part(const std::string& name, const ElementRange& part);

/// The average of a weight (train.ema) is kept with the optimizer's state, under this name: "fc.0.weight.ema".
inline constexpr const char* kAverage = "ema";

class CheckpointStore {
 public:
  /// Reads the manifest. Throws CheckpointError.
  explicit CheckpointStore(std::string checkpoint, FileProgress progress = {});

  const std::string& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }
  bool has(TensorKind kind, const std::string& name) const;
  std::vector<std::string> names(TensorKind kind) const;
  /// Rows of a table that several servers had, or optimizer state of several workers.
  bool is_in_parts(TensorKind kind, const std::string& name) const {
    return places(kind, name).front().part.has_value();
  }
  /// Whether there is an average of a weight. Those without one are not trained.
  bool has_average(const std::string& weight) const { return has(TensorKind::optimizer, average_of(weight)); }
  /// Its name.
  static std::string average_of(const std::string& weight) { return weight + "." + kAverage; }
  /// Throws CheckpointError when there is no average at all.
  void require_averages() const;
  /// dtype and sizes of a tensor, and where it is, unless that is in parts; CheckpointError when there is none, or a
  /// part is missing. Reads its file's header once.
  TensorEntry entry(TensorKind kind, const std::string& name);
  /// The path of the file that a weight is in.
  std::string file_of_weight(const std::string& name) const;
  /// Fills `to` and compares the bytes with the manifest's hash. Floating-point numbers of another dtype are cast.
  /// `part`: of what has the name; `to` is flat.
  void read(TensorKind kind, const std::string& name, const at::Tensor& to,
            const std::optional<ElementRange>& part = {});
  /// The text of a file such as trainer.json, compared with the manifest's hash.
  std::string text(const std::string& name) const;

 private:
  struct Place {
    std::string file, name;  ///< the name is that in the file
    std::uint64_t hash = 0;
    std::optional<ElementRange> part = {};
  };
  /// Of a whole tensor: one; else its parts, ascending.
  using Places = std::vector<Place>;
  const Places& places(TensorKind kind, const std::string& name) const;
  const TensorEntry& entry(const Place& place);
  void read(const Place& place, const at::Tensor& to);
  SafetensorsFile& file(const std::string& name);

  std::string path_;
  FileProgress progress_;
  Manifest manifest_;
  std::map<std::string, Places> weights_, optimizer_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;
};

/// All weights of a checkpoint, or the averages of those that have one, where they lie in its files: as tensors that
/// nobody may write to, and that are gone with this object. They take no memory of the process's own.
class MappedWeights {
 public:
  explicit MappedWeights(const CheckpointStore& store, bool averaged = false);
  const std::vector<NamedTensor>& tensors() const { return tensors_; }

 private:
  std::vector<NamedTensor> map(const std::string& path);

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<std::unique_ptr<MappedFile>> mapped_;
  std::vector<NamedTensor> tensors_;
};

}  // namespace lockstep
