// SPDX-License-Identifier: Apache-2.0
//
// What a run's data was, in a checkpoint: data.json, which people can read too.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/checkpoint/store.hpp"
#include "runtime/data/dataset.hpp"

namespace lockstep {

inline constexpr const char* kDataFile = "data.json";

std::string to_json(const DataRecord& record);
/// Throws CheckpointError naming `file`.
DataRecord data_record(const std::string& text, const std::string& file);
/// What the training set taught, for people: "scaling of a: mean 1.5, deviation 0.5", "kinds of day: date".
std::vector<std::string> learnt_lines(const DataRecord& record);
/// Absent in checkpoints that were written before there was one.
std::optional<DataRecord> data_record_of(const CheckpointStore& store);

/// The data's own record, or what 64 samples of each set, spread over all of it, say: they are read one by one.
DataRecord record_of(const DataSplits& data);

/// What stands for a set now that did not before, and what did; the first of several files. Nothing when it is the same
/// data, whatever its files are called.
struct DataDifference {
  std::string now, before;  ///< "t.csv (2930 bytes, hash 1f...)"
};
std::optional<DataDifference> data_difference(const std::vector<DataFile>& now, const std::vector<DataFile>& before);

/// What an evaluation needs to know of the checkpoint's training set, for DataContext. Throws CheckpointError.
TrainedOn trained_on(const std::string& checkpoint);

}  // namespace lockstep
