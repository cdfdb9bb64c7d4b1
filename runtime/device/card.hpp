// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

/// "NVIDIA H100 80GB HBM3": as the driver names the card behind a CUDA device, asked by its stable interface, for which
/// no toolkit is needed. Empty of other devices, and where `driver` does not answer.
std::string card_of(c10::Device device, const std::string& driver = "libcuda.so.1");

/// What takes the same time for the same work: "cpu", or type and card, "cuda NVIDIA H100 80GB HBM3"; the type alone
/// where nobody names the card.
std::string kind_of(c10::Device device);

/// Those of the accelerator that this LibTorch is built for and finds here.
std::vector<c10::Device> accelerators_here();

/// "cuda:0 NVIDIA H100 80GB HBM3, 79.1 GiB, of which 78.5 GiB are free", as far as it is known.
std::string device_text(c10::Device device);

/// All the memory that the device has; 0: not known, and of the host, whose memory is others' too.
std::int64_t memory_bytes_of(c10::Device device);

}  // namespace lockstep
