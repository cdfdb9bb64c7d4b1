// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/memory.hpp"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

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
  MemoryPool::State* pool;  // null: made on a thread without a pool
  std::size_t bytes;        // as asked for
};
static_assert(sizeof(Header) <= kAlignment);

Header* header_of(void* data) {
  return reinterpret_cast<Header*>(static_cast<char*>(data) - kAlignment);
}

}  // namespace

// Lives until its MemoryPool and its last block are gone.
struct MemoryPool::State {
  std::mutex mutex;
  std::map<std::size_t, std::vector<void*>> kept;  // by size class: whole blocks, header included
  std::int64_t bytes = 0, peak = 0, live = 0;
  bool retired = false;
};

namespace {

thread_local MemoryPool::State* current_pool = nullptr;

void* take_block(std::size_t size) {
  if (MemoryPool::State* pool = current_pool) {
    std::lock_guard lock(pool->mutex);
    const auto kept = pool->kept.find(size);
    if (kept == pool->kept.end() || kept->second.empty()) return nullptr;
    void* block = kept->second.back();
    kept->second.pop_back();
    return block;
  }
  return nullptr;
}

void free_data(void* data) {
  if (!data) return;
  Header* header = header_of(data);
  MemoryPool::State* pool = header->pool;
  if (!pool) return std::free(header);
  bool last = false;
  {
    std::lock_guard lock(pool->mutex);
    pool->bytes -= static_cast<std::int64_t>(header->bytes);
    --pool->live;
    const std::size_t size = size_class(header->bytes);
    if (size >= kKept && !pool->retired)
      pool->kept[size].push_back(header);
    else
      std::free(header);
    last = pool->retired && pool->live == 0;
  }
  if (last) delete pool;
}

class PoolAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &free_data, c10::Device(c10::kCPU)};
    const std::size_t size = size_class(bytes);
    void* block = take_block(size);
    if (!block) {
      const std::size_t whole = (size + kAlignment + kAlignment - 1) / kAlignment * kAlignment;
      block = std::aligned_alloc(kAlignment, whole);
      if (!block) throw std::bad_alloc();
    }
    new (block) Header{current_pool, bytes};
    if (MemoryPool::State* pool = current_pool) {
      std::lock_guard lock(pool->mutex);
      pool->bytes += static_cast<std::int64_t>(bytes);
      pool->peak = std::max(pool->peak, pool->bytes);
      ++pool->live;
    }
    void* data = static_cast<char*>(block) + kAlignment;
    return {data, data, &free_data, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_data; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
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

MemoryPool::MemoryPool() : state_(new State) {
  install_once();
}

MemoryPool::~MemoryPool() {
  bool last = false;
  {
    std::lock_guard lock(state_->mutex);
    for (auto& [size, blocks] : state_->kept)
      for (void* block : blocks) std::free(block);
    state_->kept.clear();
    state_->retired = true;
    last = state_->live == 0;
  }
  if (last) delete state_;
}

std::int64_t MemoryPool::bytes() const {
  std::lock_guard lock(state_->mutex);
  return state_->bytes;
}

std::int64_t MemoryPool::peak_bytes() const {
  std::lock_guard lock(state_->mutex);
  return state_->peak;
}

MemoryPool::Scope::Scope(MemoryPool& pool) : outer_(current_pool) {
  current_pool = pool.state_;
}
MemoryPool::Scope::~Scope() {
  current_pool = static_cast<State*>(outer_);
}

}  // namespace lockstep
