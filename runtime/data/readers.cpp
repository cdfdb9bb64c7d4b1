// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/readers.hpp"

namespace lockstep {

Table<DataReader> data_readers() {
  std::vector<DataReader> readers = {text_reader(), tokens_reader()};
  for (DataReader& reader : table_readers()) readers.push_back(std::move(reader));
  for (DataReader& reader : std::vector{safetensors_reader(), image_folder_reader(), idx_reader(), cifar10_reader(),
                                        cifar100_reader(), synthetic_reader(), mixture_reader()})
    readers.push_back(std::move(reader));
  return {"data reader", std::move(readers)};
}

}  // namespace lockstep
