// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "runtime/config/section.hpp"

namespace lockstep::test {

/// The message of the ConfigError, or "no error".
inline std::string thrown_by(const std::function<void()>& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace lockstep::test
