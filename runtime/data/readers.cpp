// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "runtime/data/readers.hpp"

namespace lockstep {

const std::vector<DataReader>& data_readers() {
  static const std::vector<DataReader> readers = {text_reader(), csv_reader(), synthetic_reader()};
  return readers;
}

DataSplits open_data(const Section& section, const DataContext& context) {
  const std::vector<DataReader>& readers = data_readers();
  std::vector<std::string> types;
  for (const DataReader& reader : readers) types.push_back(reader.type);
  const auto type = section.get<std::string>("type", one_of(types));
  const auto reader = std::find_if(readers.begin(), readers.end(), [&](const auto& it) { return it.type == type; });
  return reader->open(section, context);
}

}  // namespace lockstep
