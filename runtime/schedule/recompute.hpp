// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "runtime/base/names.hpp"

namespace lockstep {

/// Which forwards leave the layers that may be recomputed without their activations, to be run again in the backward.
enum class Recompute : std::uint8_t {
  never,
  except_last,  ///< not where the backward follows straight upon its forward: that saves no memory
  always,
};
template <>
inline constexpr auto kNames<Recompute> = std::array{"never", "except_last", "always"};

}  // namespace lockstep
