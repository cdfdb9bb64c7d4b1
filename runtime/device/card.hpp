// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace lockstep {

/// "NVIDIA H100 80GB HBM3": as the driver names the card behind a CUDA device, asked by its stable interface, for which
/// no toolkit is needed. Empty of other devices, and where `driver` does not answer.
std::string card_of(c10::Device device, const std::string& driver = "libcuda.so.1");

}  // namespace lockstep
