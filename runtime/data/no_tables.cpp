// SPDX-License-Identifier: Apache-2.0
//
// In place of table_reader.cpp where there is no Arrow (LOCKSTEP_ARROW=OFF).
#include "runtime/data/readers.hpp"

namespace lockstep {

std::vector<DataReader> table_readers() {
  return {};
}

}  // namespace lockstep
