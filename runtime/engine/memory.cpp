// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/memory.hpp"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "runtime/base/size.hpp"

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
  MemoryPool::State* maker;                 // whose kept blocks it joins; null: made on a thread without a pool
  std::atomic<MemoryPool::State*> charged;  // under whose mutex `kind` is
  std::size_t bytes;                        // as asked for
  MemoryKind kind;
};
static_assert(sizeof(Header) <= kAlignment);

Header* header_of(void* data) {
  return reinterpret_cast<Header*>(static_cast<char*>(data) - kAlignment);
}

}  // namespace

// Lives until its MemoryPool and the last block that it made or is charged for are gone.
struct MemoryPool::State {
  std::mutex mutex;
  std::map<std::size_t, std::vector<void*>> kept;  // by size class: whole blocks, header included
  MemoryByKind by_kind{}, at_peak{};
  std::int64_t bytes = 0, peak = 0, kept_bytes = 0, limit = 0;
  std::int64_t blocks = 0;  // made here or charged here: a block that is both counts twice
  bool retired = false;

  // All under the mutex.
  void add(std::int64_t size, MemoryKind kind) {
    bytes += size;
    by_kind[static_cast<std::size_t>(kind)] += size;
    if (bytes <= peak) return;
    peak = bytes;
    at_peak = by_kind;
  }
  void subtract(std::int64_t size, MemoryKind kind) {
    bytes -= size;
    by_kind[static_cast<std::size_t>(kind)] -= size;
  }
  void drop_kept() {
    for (auto& [size, list] : kept)
      for (void* block : list) std::free(block);
    kept.clear();
    kept_bytes = 0;
  }
  // Kept blocks go first: they are a convenience.
  void make_room(std::int64_t size) {
    if (limit == 0 || bytes + kept_bytes + size <= limit) return;
    drop_kept();
    if (bytes + size > limit) throw MemoryLimitError(over_limit(size));
  }
  std::string over_limit(std::int64_t size) const {
    std::string held;
    for (std::size_t kind = 0; kind < by_kind.size(); ++kind)
      held += concat(kind ? ", " : "", to_string(static_cast<MemoryKind>(kind)), " ", size_text(by_kind[kind]));
    return concat(
        "over the memory limit of this worker: asked for ", size_text(size), " while holding ", size_text(bytes), " (",
        held, ") of workers.memory_limit: ", size_text(limit),
        "; raise it, cut the model into more stages, use more micro-batches, or a schedule that keeps fewer of "
        "them alive");
  }
};

namespace {

thread_local MemoryPool::State* current_pool = nullptr;
thread_local MemoryKind current_kind = MemoryKind::activations;
thread_local std::int64_t net_bytes = 0;

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

template <typename Function>
void let_go(MemoryPool::State* pool, const Function& under_lock) {
  bool last = false;
  {
    std::lock_guard lock(pool->mutex);
    under_lock();
    last = --pool->blocks == 0 && pool->retired;
  }
  if (last) delete pool;
}

void free_data(void* data) {
  if (!data) return;
  Header* header = header_of(data);
  MemoryPool::State* maker = header->maker;
  if (!maker) return std::free(header);
  net_bytes -= static_cast<std::int64_t>(header->bytes);
  MemoryPool::State* charged = header->charged.load();
  const std::size_t bytes = header->bytes, size = size_class(bytes);
  let_go(charged, [&] { charged->subtract(static_cast<std::int64_t>(bytes), header->kind); });
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
    MemoryPool::State* pool = current_pool;
    void* block = pool ? charge(*pool, bytes, size) : nullptr;
    if (!block) {
      const std::size_t whole = (size + kAlignment + kAlignment - 1) / kAlignment * kAlignment;
      block = std::aligned_alloc(kAlignment, whole);
      if (!block) refuse(pool, bytes);
    }
    new (block) Header{pool, pool, bytes, current_kind};
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

MemoryPool::MemoryPool(std::int64_t limit_bytes) : state_(new State) {
  state_->limit = limit_bytes;
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
  charge_to_this(tensor, kind, /*from_others=*/true);
}
void MemoryPool::relabel(const at::Tensor& tensor, MemoryKind kind) {
  charge_to_this(tensor, kind, /*from_others=*/false);
}

void MemoryPool::charge_to_this(const at::Tensor& tensor, MemoryKind kind, bool from_others) {
  if (!tensor.defined() || !tensor.has_storage()) return;
  const c10::DataPtr& data = tensor.storage().data_ptr();
  if (!data.get() || data.get_deleter() != &free_data) return;
  Header* header = header_of(data.get());
  const auto bytes = static_cast<std::int64_t>(header->bytes);
  // Two receivers of one tensor may come here at once: the one charged is only known under its lock.
  while (State* charged = header->charged.load()) {
    if (charged == state_) {
      std::lock_guard lock(state_->mutex);
      if (header->charged.load() != charged) continue;
      if (header->kind == kind) return;
      state_->subtract(bytes, header->kind);
      state_->add(bytes, kind);
      header->kind = kind;
      return;
    }
    if (!from_others) {
      // Changes nothing, but orders this look before free_data()'s: ThreadSanitizer cannot see that the tensor's
      // reference count, which LibTorch keeps, does that.
      header->charged.fetch_add(0);
      return;
    }
    const std::scoped_lock lock(charged->mutex, state_->mutex);
    if (header->charged.load() != charged) continue;
    state_->make_room(bytes);
    charged->subtract(bytes, header->kind);
    --charged->blocks;
    state_->add(bytes, kind);
    ++state_->blocks;
    header->kind = kind;
    header->charged.store(state_);
    return;
  }
}

MemoryPool::Scope::Scope(MemoryPool& pool, MemoryKind kind) : outer_(current_pool), outer_kind_(current_kind) {
  current_pool = pool.state_;
  current_kind = kind;
}
MemoryPool::Scope::~Scope() {
  current_pool = static_cast<State*>(outer_);
  current_kind = outer_kind_;
}

}  // namespace lockstep
