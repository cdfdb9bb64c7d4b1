// SPDX-License-Identifier: Apache-2.0
//
// Tensor memory of one worker: counted by what it is for, limited, and kept for the next step.
//
// LibTorch's CPU allocator gives every large block back to the kernel when a tensor dies, and the next step pays for
// fresh pages again. Here each worker has a pool: blocks from 32 KiB on are kept in size classes and used again by the
// pool that made them, wherever they are freed.
//
// Who is charged: the pool of the thread that made the tensor, under the kind of the Scope it was made in, until it is
// freed; or until take_over() charges it to another pool (a gradient that was handed over in process belongs to its
// receiver; a value stays with its sender, whose backward needs it) or to another kind (a received slot becomes an
// activation, an accumulated product a gradient).
//
// A pool of a worker on a device counts that device's tensors, in the bytes that LibTorch's allocator gives out for
// them, which it also keeps for the next step; of the host's it counts none. A limit is noticed there when it has been
// passed.
//
// LibTorch has one CPU allocator per process: ours replaces it when the first job starts and serves threads without a
// pool as plainly as the old one. Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "runtime/base/error.hpp"
#include "runtime/schedule/step_header.hpp"

namespace lockstep {

/// workers.memory_limit is too small for what was asked. The message: asked, limit, what is held by kind, what to do.
class MemoryLimitError : public Error {
 public:
  using Error::Error;
};

class MemoryPool {
 public:
  /// `limit_bytes` bounds live tensors and kept blocks together; 0: no limit.
  explicit MemoryPool(std::int64_t limit_bytes = 0, c10::Device device = c10::kCPU);
  /// Gives the kept blocks back; tensors that are still alive stay valid.
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  c10::Device device() const;       ///< whose tensors it counts
  std::int64_t bytes() const;       ///< in live tensors, as asked for
  std::int64_t peak_bytes() const;  ///< the most there have been
  void reset_peak();                ///< the peak begins again from what is alive: for measuring a piece of code
  MemoryByKind bytes_by_kind() const;
  MemoryByKind peak_by_kind() const;  ///< what the peak consisted of: its sum is peak_bytes()

  /// Bytes that this thread has made in pools less those that it has freed, since it began: differences of it say what
  /// a piece of code keeps, whatever other threads free or take over meanwhile.
  static std::int64_t net_bytes_of_this_thread();

  /// Charges the memory of `tensor` to this pool and kind from now on, whoever paid until now. Does nothing with memory
  /// that no pool made. Throws MemoryLimitError.
  void take_over(const at::Tensor& tensor, MemoryKind kind);
  /// The same, but memory that another pool pays for stays as it is.
  void relabel(const at::Tensor& tensor, MemoryKind kind);

  /// take_over() by this thread's pool, under the kind of its Scope; of the host's memory. Without one, nothing.
  static void take_over_here(const at::Tensor& tensor);

  /// Of this thread's pool, if that is of a device: throws MemoryLimitError when tensors have been made beyond the
  /// limit since the last look.
  static void check_limit();
  /// What the pool of this thread holds, in words; empty without one.
  static std::string held_by_this_thread();

  /// While alive, tensors made on this thread come from the pool and are of this kind.
  class Scope {
   public:
    explicit Scope(MemoryPool& pool, MemoryKind kind = MemoryKind::activations);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    void* outer_;
    MemoryKind outer_kind_;
    std::shared_ptr<void> devices_;  // while alive, blocks of devices are reported
  };

  struct State;  ///< internal

 private:
  static void charge_to(State* state, const at::Tensor& tensor, MemoryKind kind, bool from_others);

  State* state_;
};

}  // namespace lockstep
