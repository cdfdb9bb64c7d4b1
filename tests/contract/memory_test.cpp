// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/memory.hpp"

#include <ATen/ATen.h>

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
