// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include <vector>

#include "runtime/config/config.hpp"

namespace lockstep {

/// What operators on devices compute with: kernels.deterministic and kernels.float32_matmul. LibTorch has one set of
/// switches per process, which its CPU operators look at too: where all devices are the CPU none is touched. Before the
/// first work on a device, and again for each run.
void set_device_kernels(const KernelsConfig& kernels, const std::vector<at::Device>& devices);

}  // namespace lockstep
