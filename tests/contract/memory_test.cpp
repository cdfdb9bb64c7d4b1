// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/memory.hpp"

#include <ATen/ATen.h>

#include <memory>
#include <set>
#include <thread>

#include "tests/test.hpp"

using namespace lockstep;

TEST_CASE("a pool counts exactly the bytes of the tensors made in its scope", "[contract]") {
  MemoryPool pool;
  at::Tensor outside = at::empty({100});
  {
    const MemoryPool::Scope scope(pool);
    at::Tensor a = at::empty({1000}), b = at::empty({1 << 20}, at::kByte), nothing = at::empty({0});
    CHECK(pool.bytes() == 4000 + (1 << 20));
    b.reset();
    CHECK(pool.bytes() == 4000);
  }
  CHECK(pool.bytes() == 0);
  CHECK(pool.peak_bytes() == 4000 + (1 << 20));
}

TEST_CASE("a peak that was reset is that of what came after", "[contract]") {
  MemoryPool pool;
  const MemoryPool::Scope scope(pool);
  const at::Tensor kept = at::empty({1000});
  at::empty({5000}).reset();
  CHECK(pool.peak_bytes() == 24'000);
  pool.reset_peak();
  CHECK(pool.peak_bytes() == 4000);
  CHECK(pool.peak_by_kind() == pool.bytes_by_kind());
  at::empty({2000}).reset();
  CHECK(pool.peak_bytes() == 12'000);
}

TEST_CASE("a freed large block serves the next tensor of its class, also when another thread freed it", "[contract]") {
  MemoryPool pool;
  const MemoryPool::Scope scope(pool);
  at::Tensor first = at::empty({100'000});
  const void* data = first.data_ptr();
  std::thread([taken = std::move(first)]() mutable { taken.reset(); }).join();
  CHECK(pool.bytes() == 0);
  CHECK(at::empty({100'000}).data_ptr() == data);
}

TEST_CASE("tensors outlive their pool", "[contract]") {
  at::Tensor kept, small;
  {
    MemoryPool pool;
    const MemoryPool::Scope scope(pool);
    kept = at::full({50'000}, 3.0);
    small = at::full({4}, 2.0);
  }
  CHECK(kept.sum().item<double>() == 150'000.0);
  CHECK(small.sum().item<double>() == 8.0);
}

TEST_CASE("blocks of every size are aligned as LibTorch expects", "[contract]") {
  MemoryPool pool;
  const MemoryPool::Scope scope(pool);
  std::vector<at::Tensor> tensors;
  for (std::int64_t size = 1; size < 300'000; size = size * 3 / 2 + 1) {
    tensors.push_back(at::zeros({size}, at::kByte));
    CHECK(reinterpret_cast<std::uintptr_t>(tensors.back().data_ptr()) % 64 == 0);
  }
}

TEST_CASE("memory is counted by what it is for, and the peak's kinds add up to the peak", "[contract]") {
  MemoryPool pool;
  const auto made = [&](MemoryKind kind, std::int64_t bytes) {
    const MemoryPool::Scope scope(pool, kind);
    return at::empty({bytes}, at::kByte);
  };
  at::Tensor weights = made(MemoryKind::parameters, 1000), state = made(MemoryKind::optimizer, 2000);
  at::Tensor first = made(MemoryKind::activations, 50'000);
  first.reset();
  at::Tensor second = made(MemoryKind::activations, 40'000), slot = made(MemoryKind::slots, 300);
  CHECK(pool.bytes_by_kind() == MemoryByKind{1000, 0, 2000, 40'000, 300});
  CHECK(pool.peak_by_kind() == MemoryByKind{1000, 0, 2000, 50'000, 0});
  CHECK(pool.peak_bytes() == 53'000);
}

TEST_CASE("memory that changes hands is charged to its new owner, and goes back to its maker when freed",
          "[contract]") {
  MemoryPool sender, receiver;
  at::Tensor tensor;
  {
    const MemoryPool::Scope scope(sender);
    tensor = at::empty({100'000}, at::kByte);
  }
  const void* data = tensor.data_ptr();
  receiver.take_over(tensor.detach(), MemoryKind::activations);
  CHECK(sender.bytes() == 0);
  CHECK(receiver.bytes_by_kind() == MemoryByKind{0, 0, 0, 100'000, 0});
  receiver.take_over(tensor, MemoryKind::gradients);
  CHECK(receiver.bytes_by_kind() == MemoryByKind{0, 100'000, 0, 0, 0});
  tensor.reset();
  CHECK(receiver.bytes() == 0);
  const MemoryPool::Scope scope(sender);
  CHECK(at::empty({100'000}, at::kByte).data_ptr() == data);
}

TEST_CASE("handing over for long does not grow either pool", "[contract]") {
  MemoryPool sender, receiver;
  std::set<const void*> blocks;
  for (int step = 0; step < 1000; ++step) {
    at::Tensor tensor;
    {
      const MemoryPool::Scope scope(sender);
      tensor = at::empty({100'000}, at::kByte);
    }
    blocks.insert(tensor.data_ptr());
    receiver.take_over(tensor, MemoryKind::activations);
  }
  CHECK(blocks.size() == 1);
  CHECK(sender.bytes() + receiver.bytes() == 0);
}

TEST_CASE("two receivers of one tensor and its last holder never lose a byte", "[contract]") {
  auto sender = std::make_unique<MemoryPool>();
  MemoryPool left, right;
  for (int round = 0; round < 300; ++round) {
    at::Tensor tensor;
    {
      const MemoryPool::Scope scope(*sender);
      tensor = at::empty({40'000}, at::kByte);
    }
    std::thread other([&left, held = tensor.detach()] { left.take_over(held, MemoryKind::activations); });
    right.take_over(tensor, MemoryKind::activations);
    tensor.reset();
    other.join();
  }
  CHECK(sender->bytes() + left.bytes() + right.bytes() == 0);
  at::Tensor kept;
  {
    const MemoryPool::Scope scope(*sender);
    kept = at::full({50'000}, 3.0);
  }
  left.take_over(kept, MemoryKind::activations);
  sender.reset();
  CHECK(kept.sum().item<double>() == 150'000.0);
}

TEST_CASE("a limit holds, frees what was kept first, and its message says what holds the memory", "[contract]") {
  MemoryPool pool(200'000);
  const MemoryPool::Scope scope(pool, MemoryKind::parameters);
  at::empty({150'000}, at::kByte);  // kept when it is freed
  at::Tensor held = at::empty({120'000}, at::kByte);
  CHECK_THROWS_WITH(at::empty({100'000}, at::kByte),
                    Catch::Contains("asked for 97.7 KiB while holding 117 KiB (parameters 117 KiB, gradients 0 B") &&
                        Catch::Contains("workers.memory_limit: 195 KiB"));
  CHECK_THROWS_AS(at::empty({100'000}, at::kByte), MemoryLimitError);
  CHECK(pool.bytes() == 120'000);
  held.reset();
  CHECK_NOTHROW(at::empty({200'000}, at::kByte));
  MemoryPool full(1000);
  CHECK_THROWS_AS(full.take_over(at::Tensor(at::empty({100'000}, at::kByte)), MemoryKind::activations),
                  MemoryLimitError);
}
