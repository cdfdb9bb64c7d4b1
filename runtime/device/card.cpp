// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/card.hpp"

#include <ATen/DeviceAccelerator.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>

namespace lockstep {
namespace {

/// The driver stays loaded: LibTorch has it too.
template <typename Function>
Function* of_driver(void* driver, const char* name) {
  return reinterpret_cast<Function*>(dlsym(driver, name));
}

}  // namespace

std::string card_of(c10::Device device, const std::string& driver) {
  if (!device.is_cuda()) return "";
  void* loaded = dlopen(driver.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!loaded) return "";
  auto* init = of_driver<int(unsigned)>(loaded, "cuInit");
  auto* get = of_driver<int(int*, int)>(loaded, "cuDeviceGet");
  auto* get_name = of_driver<int(char*, int, int)>(loaded, "cuDeviceGetName");
  if (!init || !get || !get_name) return "";
  constexpr int most = 256;
  std::array<char, most> name{};
  int handle = 0;
  const int index = std::max<int>(device.index(), 0);  // "cuda" is the first one
  if (init(0) != 0 || get(&handle, index) != 0 || get_name(name.data(), most - 1, handle) != 0) return "";
  return name.data();
}

std::string kind_of(c10::Device device) {
  const std::string type = c10::DeviceTypeName(device.type(), /*lower_case=*/true), card = card_of(device);
  return card.empty() ? type : type + " " + card;
}

std::int64_t memory_bytes_of(c10::Device device) {
  if (device.is_cpu()) return 0;
  const auto index = std::max<c10::DeviceIndex>(device.index(), 0);
  try {
    return static_cast<std::int64_t>(at::accelerator::getMemoryInfo(index).second);
  } catch (const c10::Error&) {  // of an allocator that does not know it
    return 0;
  }
}

}  // namespace lockstep
