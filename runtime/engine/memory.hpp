// SPDX-License-Identifier: Apache-2.0
//
// Tensor memory of one worker: counted, and kept for the next step.
//
// LibTorch's CPU allocator gives every large block back to the kernel when a tensor dies, and the next step pays for
// fresh pages again. Here each worker has a pool: blocks from 32 KiB on are kept in size classes and used again. A
// block belongs to the pool of the thread that asked for it until it is freed, wherever that happens, so a tensor that
// travels to another worker of the process is counted where it was made.
//
// LibTorch has one CPU allocator per process: ours replaces it when the first job starts and serves threads without a
// pool as plainly as the old one. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace lockstep {

class MemoryPool {
 public:
  MemoryPool();
  /// Gives the kept blocks back; tensors that are still alive stay valid.
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  std::int64_t bytes() const;       ///< in live tensors, as asked for
  std::int64_t peak_bytes() const;  ///< the most there have been

  /// While alive, tensors made on this thread come from the pool.
  class Scope {
   public:
    explicit Scope(MemoryPool& pool);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    void* outer_;
  };

  struct State;  ///< internal

 private:
  State* state_;
};

}  // namespace lockstep
