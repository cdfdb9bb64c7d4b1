// SPDX-License-Identifier: Apache-2.0
//
// What card_of() asks of CUDA's driver, answered for a machine with two cards.
#include <cstdio>

namespace {
bool initialised = false;
}

extern "C" {
int cuInit(unsigned flags) {
  initialised = flags == 0;
  return 0;
}
int cuDeviceGet(int* device, int index) {
  if (!initialised || index > 1) return 101;  // CUDA_ERROR_INVALID_DEVICE
  *device = 40 + index;
  return 0;
}
int cuDeviceGetName(char* name, int size, int device) {
  std::snprintf(name, static_cast<std::size_t>(size), "Pretended %d", device);
  return 0;
}
}
