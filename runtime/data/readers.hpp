// SPDX-License-Identifier: Apache-2.0
//
// The readers that come with Lockstep, one per file; readers.cpp lists them. Private to this folder.
//
// DataReader::open reads every key of the section and calls finish() before it opens a file, so that a misspelled key
// is not found after minutes of reading. What is wrong with the section is a ConfigError, with a file a DataError.
#pragma once

#include "runtime/data/dataset.hpp"

namespace lockstep {

DataReader cifar100_reader();
DataReader cifar10_reader();
DataReader idx_reader();
DataReader image_folder_reader();
DataReader mixture_reader();
DataReader safetensors_reader();
DataReader synthetic_reader();
DataReader text_reader();
/// Those of tables: csv and table; none in a build without Arrow.
std::vector<DataReader> table_readers();
DataReader tokens_reader();

}  // namespace lockstep
