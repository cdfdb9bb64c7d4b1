// SPDX-License-Identifier: Apache-2.0
//
// LOCKSTEP_CHECK(condition, message parts...): for our own bugs, in every build type. What a user can cause is a
// UserError.
#pragma once

#include "runtime/base/error.hpp"

namespace lockstep {

/// A broken promise inside Lockstep. Please report it; the message carries file, line and condition.
class InternalError : public Error {
 public:
  using Error::Error;
};

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);

}  // namespace lockstep

#define LOCKSTEP_CHECK(condition, ...)                                                                           \
  do {                                                                                                           \
    if (!(condition)) ::lockstep::check_failed(__FILE__, __LINE__, #condition, ::lockstep::concat(__VA_ARGS__)); \
  } while (false)
