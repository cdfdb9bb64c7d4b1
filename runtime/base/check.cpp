// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/check.hpp"

namespace lockstep {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  throw InternalError(concat("internal error at ", file, ":", line, ": ", condition, message.empty() ? "" : ": ",
                             message, " (this is a bug in Lockstep: please report it)"));
}

}  // namespace lockstep
