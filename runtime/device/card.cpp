// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/card.hpp"

#include <ATen/DeviceAccelerator.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "runtime/base/error.hpp"
#include "runtime/base/size.hpp"

namespace lockstep {
namespace {

/// The driver stays loaded: LibTorch has it too.
template <typename Function>
Function* of_driver(void* driver, const char* name) {
  return reinterpret_cast<Function*>(dlsym(driver, name));
}

/// Free, and all; 0: not known, and of the host.
std::pair<std::size_t, std::size_t> memory_of(c10::Device device) {
  if (device.is_cpu()) return {};
  const auto index = std::max<c10::DeviceIndex>(device.index(), 0);
  try {
    return at::accelerator::getMemoryInfo(index);
  } catch (const c10::Error&) {  // of an allocator that does not know it
    return {};
  }
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

std::vector<c10::Device> accelerators_here() {
  const std::optional<c10::DeviceType> type = at::accelerator::getAccelerator();
  const c10::DeviceIndex count = type ? at::accelerator::deviceCount() : 0;
  std::vector<c10::Device> devices;
  for (c10::DeviceIndex index = 0; index < count; ++index) devices.emplace_back(*type, index);
  return devices;
}

std::string device_text(c10::Device device) {
  std::string text = device.str();
  if (const std::string card = card_of(device); !card.empty()) text += " " + card;
  if (const auto [free, all] = memory_of(device); all > 0)
    text += concat(", ", size_text(static_cast<double>(all)), ", of which ", size_text(static_cast<double>(free)),
                   " are free");
  return text;
}

std::int64_t memory_bytes_of(c10::Device device) {
  return static_cast<std::int64_t>(memory_of(device).second);
}

}  // namespace lockstep
