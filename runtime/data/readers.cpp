// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/readers.hpp"

namespace lockstep {

Table<DataReader> data_readers() {
  std::vector<DataReader> readers = {text_reader()};
  for (DataReader& reader : table_readers()) readers.push_back(std::move(reader));
  readers.push_back(synthetic_reader());
  readers.push_back(mixture_reader());
  return {"data reader", std::move(readers)};
}

}  // namespace lockstep
