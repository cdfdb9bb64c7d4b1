// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/memory.hpp"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "runtime/engine/memory_state.hpp"

namespace lockstep {
namespace {

constexpr std::size_t kAlignment = 64;    // of LibTorch's CPU tensors, and room for the header before them
constexpr std::size_t kKept = 32 * 1024;  // smaller blocks are malloc's business

// Eight classes per power of two: at most an eighth is wasted.
std::size_t size_class(std::size_t bytes) {
  if (bytes < kKept) return bytes;
  const std::size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

struct Header {
  MemoryPool::State* maker;  // whose kept blocks it joins; null: made on a thread without a pool
  MemoryCharge charge;
};
static_assert(sizeof(Header) <= kAlignment);

Header* header_of(void* data) {
  return reinterpret_cast<Header*>(static_cast<char*>(data) - kAlignment);
}

}  // namespace

thread_local MemoryPool::State* memory::current_pool = nullptr;
thread_local MemoryKind memory::current_kind = MemoryKind::activations;
thread_local std::int64_t memory::net_bytes = 0;

namespace {

using namespace memory;

// A kept block of this class, charged; null when there is none. Throws MemoryLimitError.
void* charge(MemoryPool::State& pool, std::size_t bytes, std::size_t size) {
  std::lock_guard lock(pool.mutex);
  void* block = nullptr;
  if (const auto kept = pool.kept.find(size); kept != pool.kept.end() && !kept->second.empty()) {
    block = kept->second.back();
    kept->second.pop_back();
    pool.kept_bytes -= static_cast<std::int64_t>(size);
  }
  try {
    pool.make_room(static_cast<std::int64_t>(bytes));
  } catch (...) {
    std::free(block);
    throw;
  }
  pool.add(static_cast<std::int64_t>(bytes), current_kind);
  pool.blocks += 2;
  return block;
}

void free_data(void* data) {
  if (!data) return;
  Header* header = header_of(data);
  MemoryPool::State* maker = header->maker;
  if (!maker) return std::free(header);
  net_bytes -= static_cast<std::int64_t>(header->charge.bytes);
  MemoryPool::State* charged = header->charge.charged.load();
  const std::size_t bytes = header->charge.bytes, size = size_class(bytes);
  let_go(charged, [&] { charged->subtract(static_cast<std::int64_t>(bytes), header->charge.kind); });
  let_go(maker, [&] {
    const auto kept = static_cast<std::int64_t>(size);
    const bool fits = maker->limit == 0 || maker->bytes + maker->kept_bytes + kept <= maker->limit;
    if (size < kKept || maker->retired || !fits) return std::free(header);
    maker->kept[size].push_back(header);
    maker->kept_bytes += kept;
  });
}

class PoolAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &free_data, c10::Device(c10::kCPU)};
    const std::size_t size = size_class(bytes);
    // What a worker on a device makes on the host is none of its tensors: data on its way, and messages.
    MemoryPool::State* pool = current_pool && current_pool->device.is_cpu() ? current_pool : nullptr;
    void* block = pool ? charge(*pool, bytes, size) : nullptr;
    if (!block) {
      const std::size_t whole = (size + kAlignment + kAlignment - 1) / kAlignment * kAlignment;
      block = std::aligned_alloc(kAlignment, whole);
      if (!block) refuse(pool, bytes);
    }
    new (block) Header{pool, {pool, bytes, current_kind}};
    if (pool) net_bytes += static_cast<std::int64_t>(bytes);
    void* data = static_cast<char*>(block) + kAlignment;
    return {data, data, &free_data, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_data; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }

 private:
  [[noreturn]] static void refuse(MemoryPool::State* pool, std::size_t bytes) {
    if (!pool) throw std::bad_alloc();
    const auto asked = static_cast<std::int64_t>(bytes);
    std::int64_t held = 0;
    {
      std::lock_guard lock(pool->mutex);
      pool->subtract(asked, current_kind);
      pool->blocks -= 2;
      held = pool->bytes;
    }
    throw Error(concat("out of memory: the system refused ", size_text(asked), "; this worker's tensors hold ",
                       size_text(held), "; use more ranks on more hosts, or more micro-batches"));
  }
};

void install_once() {
  static PoolAllocator allocator;  // LibTorch keeps the pointer for the life of the process
  static const bool installed = [] {
    c10::SetCPUAllocator(&allocator, /*priority=*/100);
    return true;
  }();
  static_cast<void>(installed);
}

}  // namespace

MemoryPool::MemoryPool(std::int64_t limit_bytes, c10::Device device) : state_(new State) {
  state_->limit = limit_bytes;
  state_->device = device;
  install_once();
}

MemoryPool::~MemoryPool() {
  bool last = false;
  {
    std::lock_guard lock(state_->mutex);
    state_->drop_kept();
    state_->retired = true;
    last = state_->blocks == 0;
  }
  if (last) delete state_;
}

c10::Device MemoryPool::device() const {
  return state_->device;
}

std::int64_t MemoryPool::bytes() const {
  std::lock_guard lock(state_->mutex);
  return state_->bytes;
}

std::int64_t MemoryPool::peak_bytes() const {
  std::lock_guard lock(state_->mutex);
  return state_->peak;
}

void MemoryPool::reset_peak() {
  std::lock_guard lock(state_->mutex);
  state_->peak = state_->bytes;
  state_->at_peak = state_->by_kind;
}

MemoryByKind MemoryPool::bytes_by_kind() const {
  std::lock_guard lock(state_->mutex);
  return state_->by_kind;
}

MemoryByKind MemoryPool::peak_by_kind() const {
  std::lock_guard lock(state_->mutex);
  return state_->at_peak;
}

std::int64_t MemoryPool::net_bytes_of_this_thread() {
  return net_bytes;
}

void MemoryPool::take_over(const at::Tensor& tensor, MemoryKind kind) {
  charge_to(state_, tensor, kind, /*from_others=*/true);
}
void MemoryPool::relabel(const at::Tensor& tensor, MemoryKind kind) {
  charge_to(state_, tensor, kind, /*from_others=*/false);
}
void MemoryPool::take_over_here(const at::Tensor& tensor) {
  if (current_pool && current_pool->device.is_cpu())
    charge_to(current_pool, tensor, current_kind, /*from_others=*/true);
}

void MemoryPool::charge_to(State* state, const at::Tensor& tensor, MemoryKind kind, bool from_others) {
  if (!tensor.defined() || !tensor.has_storage()) return;
  const c10::DataPtr& data = tensor.storage().data_ptr();
  MemoryCharge* charge = nullptr;
  if (!data.device().is_cpu())
    charge = charge_of_device(data.get());
  else if (data.get() && data.get_deleter() == &free_data)
    charge = &header_of(data.get())->charge;
  if (!charge) return;
  const auto bytes = static_cast<std::int64_t>(charge->bytes);
  // Two receivers of one tensor may come here at once: the one charged is only known under its lock.
  while (State* charged = charge->charged.load()) {
    if (charged == state) {
      std::lock_guard lock(state->mutex);
      if (charge->charged.load() != charged) continue;
      if (charge->kind == kind) return;
      state->subtract(bytes, charge->kind);
      state->add(bytes, kind);
      charge->kind = kind;
      return;
    }
    if (!from_others) {
      // Changes nothing, but orders this look before free_data()'s: ThreadSanitizer cannot see that the tensor's
      // reference count, which LibTorch keeps, does that.
      charge->charged.fetch_add(0);
      return;
    }
    const std::scoped_lock lock(charged->mutex, state->mutex);
    if (charge->charged.load() != charged) continue;
    state->make_room(bytes);
    charged->subtract(bytes, charge->kind);
    --charged->blocks;
    state->add(bytes, kind);
    ++state->blocks;
    charge->kind = kind;
    charge->charged.store(state);
    return;
  }
}

void MemoryPool::check_limit() {
  if (!current_pool || current_pool->device.is_cpu()) return;
  std::string beyond;
  {
    std::lock_guard lock(current_pool->mutex);
    beyond = std::exchange(current_pool->beyond, {});
  }
  if (!beyond.empty()) throw MemoryLimitError(beyond);
}

std::string MemoryPool::held_by_this_thread() {
  if (!current_pool) return "";
  std::lock_guard lock(current_pool->mutex);
  return current_pool->held();
}

MemoryPool::Scope::Scope(MemoryPool& pool, MemoryKind kind) : outer_(current_pool), outer_kind_(current_kind) {
  if (!pool.state_->device.is_cpu() && current_pool != pool.state_) devices_ = count_devices();
  current_pool = pool.state_;
  current_kind = kind;
}
MemoryPool::Scope::~Scope() {
  current_pool = static_cast<State*>(outer_);
  current_kind = outer_kind_;
}

}  // namespace lockstep
