// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lockstep {

/// Which forwards leave the layers that may be recomputed without their activations, to be run again in the backward.
enum class Recompute : std::uint8_t {
  never,
  except_last,  ///< not where the backward follows straight upon its forward: that saves no memory
  always,
};

/// As pipeline.recompute has it.
constexpr const char* to_string(Recompute recompute) {
  switch (recompute) {
    case Recompute::never: return "never";
    case Recompute::except_last: return "except_last";
    case Recompute::always: return "always";
  }
  return nullptr;
}

}  // namespace lockstep
