// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lockstep {

/// What dropout draws its masks with.
enum class DropoutKernel : std::uint8_t {
  torch,   ///< LibTorch's generator of the device: another one, and other masks, on every kind of device
  philox,  ///< Philox4x32-10: the same masks on every device
};

/// As kernels.dropout has it.
constexpr const char* to_string(DropoutKernel kernel) {
  switch (kernel) {
    case DropoutKernel::torch: return "torch";
    case DropoutKernel::philox: return "philox";
  }
  return nullptr;
}

}  // namespace lockstep
