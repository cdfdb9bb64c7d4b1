// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/readers.hpp"

namespace lockstep {

Table<DataReader> data_readers() {
  return {"data reader", {text_reader(), csv_reader(), synthetic_reader(), mixture_reader()}};
}

}  // namespace lockstep
