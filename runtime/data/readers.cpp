// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/readers.hpp"

namespace lockstep {

Table<DataReader> data_readers() {
  return {"data reader", {text_reader(), csv_reader(), synthetic_reader()}};
}

DataSplits open_data(const Section& section, const DataContext& context, const Table<DataReader>& readers) {
  const auto type = section.get<std::string>("type", one_of(readers.names()));
  return readers.get(type).open(section, context);
}

}  // namespace lockstep
