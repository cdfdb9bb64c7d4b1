// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/layer.hpp"

#include <c10/core/ScalarType.h>

namespace lockstep {

std::string to_string(const EntrySpec& entry) {
  return concat(entry.name, " ", c10::toString(entry.dtype), " [", join(entry.sizes), "]");
}

}  // namespace lockstep
