// SPDX-License-Identifier: Apache-2.0
#include "tests/accelerator/accelerator.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "runtime/base/clock.hpp"
#include "runtime/base/error.hpp"

namespace lockstep::test {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;
constexpr int kStreamsPerDevice = 64;
constexpr int kPool = 32;

// ---- the order of things ----

/// By stream of all devices: how much of its work is known to be done before. Absent: nothing.
using Clock = std::map<int, std::uint64_t>;

void join(Clock& clock, const Clock& other) {
  for (const auto& [stream, tick] : other) clock[stream] = std::max(clock[stream], tick);
}
bool knows(const Clock& clock, int stream, std::uint64_t tick) {
  const auto found = clock.find(stream);
  return found != clock.end() && found->second >= tick;
}

struct Use {
  std::uint64_t tick = 0;
  std::string what;
};

/// A block of a device, or of pinned memory.
struct Block {
  std::size_t bytes = 0;
  int device = -1;  // -1: pinned
  int stream = -1;  // that it was made for; of pinned memory none
  int written_by = -1;
  Use written;
  std::map<int, Use> read_by;  // by stream
};

struct PendingCopy {
  std::uint64_t tick = 0;
  void* to = nullptr;
  std::vector<char> bytes;
};

struct EventState {
  Clock clock;
  int looks = 0;
  double us = 0;
};

struct World {
  std::mutex mutex;
  std::map<int, Clock> streams;
  std::map<char*, Block> blocks;
  std::map<int, std::vector<PendingCopy>> pending;  // by stream
  std::vector<std::string> findings;
  AcceleratorCounts counts;
  std::set<int> used;
  std::int64_t live[kSimulatedDevices] = {}, peak[kSimulatedDevices] = {};
  std::int64_t device_bytes = 0;
  int lag = 0;
  int next_stream[kSimulatedDevices] = {};
};

World& world() {
  static World* all = new World;  // blocks may be freed by whoever is last in the process
  return *all;
}

thread_local Clock host;  // what this thread knows to be done
thread_local int current_device = 0;
thread_local int current_stream[kSimulatedDevices] = {};  // within the device; 0: its default one

int index_of(const c10::Stream& stream) {
  return stream.device_index() * kStreamsPerDevice + static_cast<int>(stream.id());
}
int index_of(int device) {
  return device * kStreamsPerDevice + current_stream[device];
}
std::string name_of(int stream) {
  return concat("stream ", stream % kStreamsPerDevice, " of sim:", stream / kStreamsPerDevice);
}

// All of these under the mutex.
void found(const std::string& what) {
  if (world().findings.size() < 100) world().findings.push_back(what);
}

Block* block_of(const void* data) {
  auto next = world().blocks.upper_bound(static_cast<char*>(const_cast<void*>(data)));
  if (next == world().blocks.begin()) return nullptr;
  --next;
  return static_cast<const char*>(data) < next->first + std::max<std::size_t>(next->second.bytes, 1) ? &next->second
                                                                                                     : nullptr;
}

struct Access {
  const void* data = nullptr;
  bool writes = false;
};

void check(const Clock& clock, int stream, const Block& block, const Access& access, const std::string& what) {
  if (block.written_by >= 0 && block.written_by != stream && !knows(clock, block.written_by, block.written.tick))
    found(concat("data race: ", what, " on ", name_of(stream), access.writes ? " writes" : " reads", " what ",
                 block.written.what, " on ", name_of(block.written_by), " has written, without an event between"));
  if (!access.writes) return;
  for (const auto& [reader, use] : block.read_by)
    if (reader != stream && !knows(clock, reader, use.tick))
      found(concat("data race: ", what, " on ", name_of(stream), " writes what ", use.what, " on ", name_of(reader),
                   " reads, without an event between"));
}

/// A kernel or copy on a stream.
std::uint64_t work(int stream, const std::vector<Access>& accesses, const std::string& what) {
  World& here = world();
  Clock& clock = here.streams[stream];
  join(clock, host);
  const std::uint64_t tick = ++clock[stream];
  here.used.insert(stream);
  ++here.counts.kernels;
  for (const Access& access : accesses)
    if (const Block* block = block_of(access.data)) check(clock, stream, *block, access, what);
  for (const Access& access : accesses) {
    Block* block = block_of(access.data);
    if (!block) continue;
    if (access.writes) {
      block->written_by = stream;
      block->written = {tick, what};
      block->read_by.clear();
    } else {
      block->read_by[stream] = {tick, what};
    }
  }
  return tick;
}

/// The host has waited for all of this: what was copied to it has arrived.
void arrived(const Clock& clock) {
  join(host, clock);
  for (auto& [stream, copies] : world().pending) {
    const auto done = clock.find(stream);
    if (done == clock.end()) continue;
    std::erase_if(copies, [&](const PendingCopy& copy) {
      if (copy.tick > done->second) return false;
      std::memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
      return true;
    });
  }
}

void wait_for(int stream) {
  ++world().counts.waits;
  arrived(world().streams[stream]);
}

// ---- memory ----

void free_block(void* data) {
  if (!data) return;
  World& here = world();
  {
    const std::lock_guard lock(here.mutex);
    const auto at = here.blocks.find(static_cast<char*>(data));
    const Block& block = at->second;
    // Whoever gets it next may write to it at once: on the host, or in the order of the stream that it was made for.
    Clock known = host;
    if (block.stream >= 0) {
      join(known, here.streams[block.stream]);
      here.live[block.device] -= static_cast<std::int64_t>(block.bytes);
    }
    const auto look = [&](int stream, const Use& use) {
      if (stream < 0 || stream == block.stream || knows(known, stream, use.tick)) return;
      found(concat("freed early: a block of ", name_of(block.stream), " that ", use.what, " on ", name_of(stream),
                   " may still be using"));
    };
    if (block.stream >= 0) {
      look(block.written_by, block.written);
      for (const auto& [stream, use] : block.read_by) look(stream, use);
    } else {  // LibTorch's allocator gives it to nobody before the copies that it knows of are over
      const auto* begin = static_cast<const char*>(data);
      for (auto& [stream, copies] : here.pending)
        std::erase_if(copies, [&](const PendingCopy& copy) {
          return copy.to >= begin && copy.to < begin + std::max<std::size_t>(block.bytes, 1);
        });
    }
    here.blocks.erase(at);
  }
  std::free(data);
}

void* make_block(std::size_t bytes, int device, int stream) {
  World& here = world();
  void* data = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  TORCH_CHECK(data, "out of host memory");
  std::memset(data, 0xff, bytes);
  const std::lock_guard lock(here.mutex);
  here.blocks[static_cast<char*>(data)] = Block{bytes, device, stream, -1, {}, {}};
  if (device < 0) return data;
  here.live[device] += static_cast<std::int64_t>(bytes);
  here.peak[device] = std::max(here.peak[device], here.live[device]);
  return data;
}

class DeviceMemory : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    const c10::Device device(kType, static_cast<c10::DeviceIndex>(current_device));
    if (bytes == 0) return {nullptr, nullptr, &free_device, device};
    {
      World& here = world();
      const std::lock_guard lock(here.mutex);
      const std::int64_t held = here.live[current_device];
      TORCH_CHECK_WITH(OutOfMemoryError,
                       here.device_bytes == 0 || held + static_cast<std::int64_t>(bytes) <= here.device_bytes,
                       "sim:", current_device, " is out of memory: tried to allocate ", bytes, " with ", held, " of ",
                       here.device_bytes, " in use");
    }
    void* data = make_block(bytes, current_device, index_of(current_device));
    report(data, static_cast<std::int64_t>(bytes), current_device);
    return {data, data, &free_device, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_device; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    {
      const std::lock_guard lock(world().mutex);
      work(index_of(current_device), {{from, false}, {to, true}}, "copy_data");
    }
    std::memcpy(to, from, bytes);
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t = {0, 0}) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {
    const std::lock_guard lock(world().mutex);
    found("record_stream: memory would depend on timing");
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    const std::lock_guard lock(world().mutex);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[0].current = world().live[device];
    stats.allocated_bytes[0].peak = world().peak[device];
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex device) override {
    const std::lock_guard lock(world().mutex);
    world().peak[device] = world().live[device];
  }

 private:
  static void free_device(void* data) {
    if (!data) return;
    std::int64_t bytes = 0;
    int device = 0;
    {
      const std::lock_guard lock(world().mutex);
      const Block& block = world().blocks.at(static_cast<char*>(data));
      bytes = static_cast<std::int64_t>(block.bytes);
      device = block.device;
    }
    free_block(data);
    report(data, -bytes, device);
  }
  static void report(void* data, std::int64_t bytes, int device) {
    c10::reportMemoryUsageToProfiler(data, bytes, 0, 0, c10::Device(kType, static_cast<c10::DeviceIndex>(device)));
  }
};

class PinnedMemory : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &free_block, c10::Device(c10::kCPU)};
    void* data = make_block(bytes, -1, -1);
    return {data, data, &free_block, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
};

DeviceMemory& device_memory() {
  static auto* memory = new DeviceMemory;
  return *memory;
}
PinnedMemory& pinned_memory() {
  static auto* memory = new PinnedMemory;
  return *memory;
}

// ---- devices, streams, events ----

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
    c10::DataPtr data = device_memory().allocate(bytes);
    if (storage.data()) device_memory().copy_data(data.get(), storage.data(), std::min(bytes, storage.nbytes()));
    c10::StorageImpl* impl = storage.unsafeGetStorageImpl();
    impl->set_data_ptr_noswap(std::move(data));
    impl->set_nbytes(bytes);
  }
};

// ---- kernels ----

bool is_here(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kType;
}

at::Tensor host_alias(const at::Tensor& tensor) {
  return at::from_blob(
      tensor.data_ptr(), tensor.sizes(), tensor.strides(), [](void*) {},
      at::TensorOptions(tensor.scalar_type()).device(c10::kCPU));
}

at::Tensor empty_strided_here(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype) {
  return at::detail::empty_strided_generic(sizes, strides, &device_memory(),
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype);
}

enum class Role { read, write, out };  ///< out: written, and perhaps given its size, which an alias cannot be

/// One operator: the CPU's kernel on aliases of what it is given.
class Call {
 public:
  explicit Call(const std::string& name) : name_(name) {}

  at::Tensor take(const at::Tensor& tensor, Role role) {
    if (!is_here(tensor)) return tensor;
    device_ = tensor.device().index();
    accesses_.push_back({tensor.storage().data(), role != Role::read});
    const at::Tensor made =
        role == Role::out ? at::empty({0}, at::TensorOptions(tensor.scalar_type())) : host_alias(tensor);
    aliases_.emplace_back(made.unsafeGetTensorImpl(), tensor);
    return made;
  }
  /// A result as one of the device's: what was handed in, or new.
  at::Tensor give(const at::Tensor& result) {
    if (!result.defined() || result.device().type() != c10::kCPU) return result;
    for (const auto& [made, given] : aliases_) {
      if (made != result.unsafeGetTensorImpl()) continue;
      if (result.data_ptr() == given.data_ptr()) return given;
      given.resize_(result.sizes());  // an output that it had to be given the size of
      host_alias(given).copy_(result);
      return given;
    }
    if (device_ < 0) return result;
    const c10::DeviceGuard guard(c10::Device(kType, static_cast<c10::DeviceIndex>(device_)));
    at::Tensor made = empty_strided_here(result.sizes(), result.strides(), result.scalar_type());
    host_alias(made).copy_(result);
    accesses_.push_back({made.storage().data(), true});
    return made;
  }
  void on(c10::Device device) {
    if (device_ < 0) device_ = device.index();
  }
  ~Call() {
    if (device_ < 0) return;
    const std::lock_guard lock(world().mutex);
    work(index_of(device_), accesses_, name_);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  std::string name_;
  int device_ = -1;
  std::vector<Access> accesses_;
  std::vector<std::pair<c10::TensorImpl*, at::Tensor>> aliases_;
};

c10::IValue taken(Call& call, const c10::IValue& value, Role role) {
  if (value.isTensor()) return call.take(value.toTensor(), role);
  if (value.isTensorList()) {
    std::vector<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(call.take(tensor, role));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
      list.push_back(tensor ? std::optional(call.take(*tensor, role)) : std::nullopt);
    return list;
  }
  if (value.isDevice() && value.toDevice().type() == kType) {
    call.on(value.toDevice());
    return c10::Device(c10::kCPU);
  }
  return value;
}

c10::IValue given(Call& call, const c10::IValue& value) {
  if (value.isTensor()) return call.give(value.toTensor());
  if (!value.isTensorList()) return value;
  std::vector<at::Tensor> list;
  for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(call.give(tensor));
  return list;
}

void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const std::size_t arguments = schema.arguments().size(), results = schema.returns().size();
  Call call(schema.name());
  torch::jit::Stack inner;
  for (std::size_t i = 0; i < arguments; ++i) {
    const c10::Argument& argument = schema.arguments()[i];
    const bool writes = argument.alias_info() && argument.alias_info()->isWrite();
    const Role role = !writes ? Role::read : argument.kwarg_only() ? Role::out : Role::write;
    inner.push_back(taken(call, (*stack)[stack->size() - arguments + i], role));
  }
  torch::jit::drop(*stack, arguments);
  const torch::jit::Stack kept = inner;  // aliases are known by their address: none may be made in another's place
  op.callBoxed(&inner);
  for (std::size_t i = 0; i < results; ++i) stack->push_back(given(call, inner[inner.size() - results + i]));
}

at::Tensor empty_here(at::IntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                      std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(sizes, &device_memory(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   dtype.value_or(at::kFloat), format);
}

at::Tensor empty_strided_as_asked(at::IntArrayRef sizes, at::IntArrayRef strides, std::optional<at::ScalarType> dtype,
                                  std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return empty_strided_here(sizes, strides, dtype.value_or(at::kFloat));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const at::Tensor source = is_here(from) ? host_alias(from) : from;
  at::Tensor target = is_here(to) ? host_alias(to) : to;
  const int device = is_here(from) ? from.device().index() : to.device().index();
  const std::vector<Access> accesses = {{from.storage().data(), false}, {to.storage().data(), true}};
  if (is_here(to)) {
    {
      World& here = world();
      const std::lock_guard lock(here.mutex);
      if (is_here(from) && from.device() != to.device()) {  // both streams wait for each other, as CUDA's copy does
        Clock both = here.streams[index_of(from.device().index())];
        join(both, here.streams[index_of(to.device().index())]);
        here.streams[index_of(from.device().index())] = here.streams[index_of(to.device().index())] = both;
        work(index_of(device), accesses, "copy_");
        join(here.streams[index_of(to.device().index())], here.streams[index_of(device)]);
      } else {
        work(index_of(device), accesses, "copy_");
      }
      // From memory that is not pinned a copy has read all of it when it returns, and need not have written it.
      if (!is_here(from) && !non_blocking) wait_for(index_of(device));
    }
    target.copy_(source);
    return to;
  }
  const bool waits = !non_blocking || !to.is_contiguous() || !to.is_pinned();
  at::Tensor now = waits ? target : at::empty_like(target);
  now.copy_(source);
  World& here = world();
  const std::lock_guard lock(here.mutex);
  const std::uint64_t tick = work(index_of(device), accesses, "copy_ to the host");
  here.counts.to_host_bytes += static_cast<std::int64_t>(to.nbytes());
  if (waits) {
    wait_for(index_of(device));
  } else {
    std::memset(target.data_ptr(), 0xff, target.nbytes());
    const char* bytes = static_cast<const char*>(now.data_ptr());
    here.pending[index_of(device)].push_back({tick, target.data_ptr(), std::vector<char>(bytes, bytes + now.nbytes())});
  }
  return to;
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  const at::Tensor value = host_alias(self);
  const std::lock_guard lock(world().mutex);
  work(index_of(self.device().index()), {{self.storage().data(), false}}, "item");
  world().counts.to_host_bytes += static_cast<std::int64_t>(self.element_size());
  wait_for(index_of(self.device().index()));
  return value.item();
}

const at::Tensor& resize_here(const at::Tensor& self, at::IntArrayRef sizes, std::optional<at::MemoryFormat>) {
  const c10::DeviceGuard guard(self.device());
  c10::TensorImpl* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(sizes);
  const std::size_t bytes = self.storage_offset() * self.element_size() + self.nbytes();
  if (bytes > self.storage().nbytes()) Hooks().resizePrivateUse1Bytes(self.storage(), bytes);
  return self;
}

at::Tensor convolution_here(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                            bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  Call call("convolution");
  return call.give(at::convolution_symint(call.take(input, Role::read), call.take(weight, Role::read),
                                          bias ? std::optional(call.take(*bias, Role::read)) : std::nullopt, stride,
                                          padding, dilation, transposed, output_padding, groups));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward_here(
    const at::Tensor& gradient, const at::Tensor& input, const at::Tensor& weight, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups, std::array<bool, 3> mask) {
  Call call("convolution_backward");
  const c10::SymInt channels = gradient.sym_size(1);
  const auto [x, w, b] = at::convolution_backward_symint(
      call.take(gradient, Role::read), call.take(input, Role::read), call.take(weight, Role::read),
      mask[2] ? at::OptionalSymIntArrayRef(channels) : std::nullopt, stride, padding, dilation, transposed,
      output_padding, groups, mask);
  return {call.give(x), call.give(w), call.give(b)};
}

void register_kernels() {
  static torch::Library all(torch::Library::IMPL, "_", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  all.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
  static torch::Library aten(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  aten.impl("empty.memory_format", &empty_here);
  aten.impl("empty_strided", &empty_strided_as_asked);
  aten.impl("_copy_from", &copy_from);
  aten.impl("_local_scalar_dense", &local_scalar_dense);
  aten.impl("resize_", &resize_here);
  aten.impl("view", &at::native::view);
  aten.impl("as_strided", &at::native::as_strided_tensorimpl);
  aten.impl("_reshape_alias", &at::native::_reshape_alias);
  aten.impl("unfold", &at::native::unfold);
  aten.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  aten.impl("set_.source_Tensor", &at::native::set_tensor_);
  aten.impl("convolution_overrideable", &convolution_here);
  aten.impl("convolution_backward_overrideable", &convolution_backward_here);
}

}  // namespace

void Accelerator::use() {
  static const bool registered = [] {
    c10::register_privateuse1_backend("sim");
    c10::impl::registerDeviceGuard(kType, new Guard);
    c10::SetAllocator(kType, &device_memory());
    at::RegisterPrivateUse1HooksInterface(new Hooks);
    register_kernels();
    return true;
  }();
  static_cast<void>(registered);
}

void Accelerator::reset() {
  const std::lock_guard lock(world().mutex);
  world().findings.clear();
  world().counts = {};
  world().used.clear();
}

std::vector<std::string> Accelerator::findings() {
  const std::lock_guard lock(world().mutex);
  return world().findings;
}

AcceleratorCounts Accelerator::counts() {
  const std::lock_guard lock(world().mutex);
  AcceleratorCounts counts = world().counts;
  counts.streams = static_cast<std::int64_t>(world().used.size());
  return counts;
}

void Accelerator::set_lag(int looks) {
  const std::lock_guard lock(world().mutex);
  world().lag = looks;
}

std::int64_t Accelerator::live_bytes(int device) {
  const std::lock_guard lock(world().mutex);
  return world().live[device];
}

void Accelerator::set_device_bytes(std::int64_t bytes) {
  const std::lock_guard lock(world().mutex);
  world().device_bytes = bytes;
}

}  // namespace lockstep::test
