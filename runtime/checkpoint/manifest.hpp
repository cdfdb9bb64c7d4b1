// SPDX-License-Identifier: Apache-2.0
//
// A checkpoint is a folder, and the manifest says what is in it:
//
//   RUN_FOLDER/checkpoints/step-00000100/
//     config.json                           the model, as Hugging Face's transformers wants it, where they know it
//     model-00001-of-00002.safetensors      weights and buffers by name, a file per worker
//     model.safetensors.index.json          which file has which weight
//     optimizer-00001-of-00002.safetensors  "<parameter>.exp_avg", ...: state of the optimizer by name
//     trainer.json                          step, data position, numerics, best evaluation
//     model.yaml                            which model it is, and what it reads
//     data.json                             which data it was, and what it taught (scaling)
//     manifest.json                         sizes and hashes of all of these; written last
//   RUN_FOLDER/checkpoints/best             link to the best one, where asked for
//
// While it is being written it is called step-00000100.part, and nobody takes it for a checkpoint: it is renamed when
// everything, the manifest too, is on the disk. So a checkpoint is there whole or not at all.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/checkpoint/safetensors.hpp"

namespace lockstep {

inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr const char* kTrainerFile = "trainer.json";

/// What one worker has written of a checkpoint: travels to row 0 as text.
struct ShardReport {
  std::int64_t step = 0;
  int row = 0;
  std::vector<WrittenFile> files;
  std::map<std::string, std::uint64_t> copies;  ///< hashes of tied parameters that another worker has written
  std::map<std::string, std::string> bases;     ///< base_text() of what an adapter leaves as it is
  std::string not_finite = {};                  ///< WrittenFile::not_finite of the first file that has one
  std::string to_text() const;
  static ShardReport from_text(const std::string& text);
};

struct Manifest {
  std::int64_t step = 0;
  std::map<std::string, WrittenFile> shards;  ///< safetensors files, by name
  struct Text {
    std::int64_t bytes = 0;
    std::uint64_t hash = 0;
  };
  std::map<std::string, Text> texts;  ///< JSON files, by name
  /// Of an adapter, what it was trained on and is not in the folder: base_text() of each tensor (adapter.hpp).
  std::map<std::string, std::string> bases = {};
};

/// Throws CheckpointError when `checkpoint` is no checkpoint folder or its manifest is damaged.
Manifest read_manifest(const std::string& checkpoint);

/// All that is wrong with a checkpoint, each finding naming file and tensor; empty: it is good. Reads every byte of the
/// shards number `part`, `part + parts`, ..., so that several processes can share the work; the rest only as far as
/// sizes and headers go.
std::vector<std::string> find_damage(const std::string& checkpoint, int part = 0, int parts = 1);

struct CheckpointPlace {
  std::string path;
  std::int64_t step = 0;
};

/// "RUN_FOLDER/checkpoints"
std::string checkpoints_of(const std::string& run_folder);
/// FOLDER/step-00000100
std::string checkpoint_path(const std::string& checkpoints, std::int64_t step);
/// The published ones in a folder of checkpoints, oldest first; empty when there is no such folder.
std::vector<CheckpointPlace> list_checkpoints(const std::string& checkpoints);

/// Which checkpoint to go on from.
struct CheckpointChoice {
  std::string path;  ///< empty: there is none that is good
  std::int64_t step = 0;
  std::vector<std::string> skipped;  ///< newer ones that are damaged: "PATH: what is wrong"
};
/// The newest one of a run that is whole and unaltered. Reads it all.
CheckpointChoice latest_good_checkpoint(const std::string& run_folder);

/// "; the newest good one beside it is PATH" or "; there is no good one beside it": the end of a message about damage.
std::string other_good_checkpoint(const std::string& damaged);

// ---- publishing, by one process ----

/// The shards are in `part` and on the disk: adds index and texts (name -> content), then the manifest, and renames the
/// folder to `final_path`. What was there before under this name is replaced. Throws Error.
void publish_checkpoint(const std::string& part, const std::string& final_path, Manifest manifest,
                        const std::map<std::string, std::string>& texts, const FileProgress& progress = {});

/// Removes the oldest ones so that `keep` stay; never `spared`.
void prune_checkpoints(const std::string& checkpoints, int keep, std::int64_t spared_step,
                       const FileProgress& progress = {});

/// Before a job writes: unfinished folders of a job that died are removed; checkpoints after `step` belong to a future
/// that will not be, and are renamed to superseded-step-..., in the place of those that an earlier job renamed.
/// `spared`: a checkpoint that is never removed; may be empty.
void clear_after(const std::string& checkpoints, std::int64_t step, const std::string& spared = {});

/// The link `best`; a negative step removes it.
void point_to_best(const std::string& checkpoints, std::int64_t step);

std::string hex(std::uint64_t value);
/// Throws std::runtime_error when `text` is no number in hexadecimal.
std::uint64_t from_hex(const std::string& text);

}  // namespace lockstep
