// SPDX-License-Identifier: Apache-2.0
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>

#include "runtime/base/clock.hpp"
#include "tests/accelerator/simulated_order.hpp"

namespace lockstep::test::simulated {
namespace {

constexpr int kPool = 32;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    current_device = device.index();
    return before;
  }
  c10::Device getDevice() const override { return {kType, static_cast<c10::DeviceIndex>(current_device)}; }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < kSimulatedDevices, "no device ", device);
    current_device = device.index();
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current_device = device.index(); }
  c10::DeviceIndex deviceCount() const noexcept override { return kSimulatedDevices; }

  static c10::Stream stream(int device, int id) {
    return c10::Stream(c10::Stream::UNSAFE, {kType, static_cast<c10::DeviceIndex>(device)}, id);
  }
  static int index(c10::Device device) { return device.has_index() ? device.index() : current_device; }
  c10::Stream getStream(c10::Device device) const override {
    return stream(index(device), current_stream[index(device)]);
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return stream(index(device), 0); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return getNewStream(device, 0); }
  c10::Stream getNewStream(c10::Device device, int) const override {
    const std::lock_guard lock(world().mutex);
    return stream(index(device), 1 + world().next_stream[index(device)]++ % kPool);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream before = getStream(stream.device());
    current_stream[stream.device_index()] = static_cast<int>(stream.id());
    return before;
  }

  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex, const c10::EventFlag) const override {
    const std::lock_guard lock(world().mutex);
    if (!*event) *event = new EventState;
    Clock& clock = world().streams[index_of(stream)];
    join(clock, host);
    *static_cast<EventState*>(*event) = {clock, world().lag, now_us()};
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (!event) return;
    const std::lock_guard lock(world().mutex);
    join(world().streams[index_of(stream)], static_cast<EventState*>(event)->clock);
  }
  bool queryEvent(void* event) const override {
    if (!event) return true;
    const std::lock_guard lock(world().mutex);
    auto& state = *static_cast<EventState*>(event);
    const bool known = std::all_of(state.clock.begin(), state.clock.end(),
                                   [](const auto& point) { return knows(host, point.first, point.second); });
    if (!known && state.looks-- > 0) return false;
    arrived(state.clock);
    return true;
  }
  void synchronizeEvent(void* event) const override {
    if (!event) return;
    const std::lock_guard lock(world().mutex);
    ++world().counts.waits;
    arrived(static_cast<EventState*>(event)->clock);
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<EventState*>(event);
  }
  double elapsedTime(void* from, void* to, const c10::DeviceIndex) const override {
    const std::lock_guard lock(world().mutex);
    const auto &begin = *static_cast<EventState*>(from), &end = *static_cast<EventState*>(to);
    for (const EventState* event : {&begin, &end})
      for (const auto& [stream, tick] : event->clock)
        if (!knows(host, stream, tick)) found("a time was asked for that is not over");
    return (end.us - begin.us) * 1e-3;
  }

  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream& stream) const override {
    const std::lock_guard lock(world().mutex);
    wait_for(index_of(stream));
  }
  void synchronizeDevice(const c10::DeviceIndex device) const override {
    const std::lock_guard lock(world().mutex);
    ++world().counts.waits;
    for (int id = 0; id < kStreamsPerDevice; ++id) arrived(world().streams[device * kStreamsPerDevice + id]);
  }
  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& stream) const override {
    device_memory().recordStream(data, stream);
  }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kSimulatedDevices; }
  c10::DeviceIndex getCurrentDevice() const override { return static_cast<c10::DeviceIndex>(current_device); }
  void setCurrentDevice(c10::DeviceIndex device) const override { current_device = device; }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::detail::createCPUGenerator(); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory(); }
  bool isPinnedPtr(const void* data) const override {
    const std::lock_guard lock(world().mutex);
    const Block* block = block_of(data);
    return block && block->device < 0;
  }
  c10::Device getDeviceFromPtr(void* data) const override {
    const std::lock_guard lock(world().mutex);
    const Block* block = block_of(data);
    TORCH_CHECK(block && block->device >= 0, "no memory of a device");
    return {kType, static_cast<c10::DeviceIndex>(block->device)};
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, std::size_t bytes) const override {
    resize_bytes(storage, bytes);
  }
};

}  // namespace

void resize_bytes(const c10::Storage& storage, std::size_t bytes) {
  c10::DataPtr data = device_memory().allocate(bytes);
  if (storage.data()) device_memory().copy_data(data.get(), storage.data(), std::min(bytes, storage.nbytes()));
  c10::StorageImpl* impl = storage.unsafeGetStorageImpl();
  impl->set_data_ptr_noswap(std::move(data));
  impl->set_nbytes(bytes);
}

void register_devices() {
  c10::register_privateuse1_backend("sim");
  c10::impl::registerDeviceGuard(kType, new Guard);
  c10::SetAllocator(kType, &device_memory());
  at::RegisterPrivateUse1HooksInterface(new Hooks);
}

}  // namespace lockstep::test::simulated
