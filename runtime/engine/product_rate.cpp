// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/product_rate.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "runtime/base/clock.hpp"
#include "runtime/engine/memory.hpp"

namespace lockstep {
namespace {

class SquareProduct {
 public:
  SquareProduct(const DeviceStream& stream, at::ScalarType dtype, std::int64_t size) : stream_(stream), size_(size) {
    // Of zeros, devices are faster.
    const at::TensorOptions options = at::TensorOptions(at::kFloat).device(stream.device());
    factor_ = at::arange(size * size, options).sin_().to(dtype).view({size, size});
    product_ = at::empty_like(factor_);
  }

  /// Of one of so many in a row.
  double us(int count) {
    stream_.synchronize();
    const double begin = now_us();
    for (int i = 0; i < count; ++i) at::mm_out(product_, factor_, factor_);
    stream_.synchronize();
    return (now_us() - begin) / count;
  }
  double operations() const { return 2 * std::pow(static_cast<double>(size_), 3); }

 private:
  const DeviceStream& stream_;
  std::int64_t size_;
  at::Tensor factor_, product_;
};

}  // namespace

void set_up_products(const DeviceStream& stream, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  SquareProduct(stream, dtype, 1).us(1);
  const at::Tensor factor = at::zeros({1, 1}, at::TensorOptions(dtype).device(stream.device()));
  at::addmm(factor.view({1}), factor, factor);  // with a bias, another library's
}

double product_rate(const DeviceStream& stream, at::ScalarType dtype) {
  // Smaller ones take so little that a core which another process has for a moment is all that would be seen.
  constexpr std::int64_t smallest = 512, largest = 4096;
  constexpr double long_us = 2000, round_us = 5000;  // long enough that starting it costs nothing
  constexpr double enough_us = 40'000;
  const at::NoGradGuard no_grad;
  set_up_products(stream, dtype);
  MemoryPool uncounted(0, stream.device());
  const MemoryPool::Scope memory(uncounted);
  const double until_us = now_us() + enough_us;
  for (std::int64_t size = smallest;; size *= 2) {
    SquareProduct product(stream, dtype, size);
    double us = product.us(1);
    for (int again = 0; again < 2 && now_us() < until_us; ++again) us = std::min(us, product.us(1));
    if (us < long_us && size < largest) continue;
    const int count = std::max(1, static_cast<int>(std::ceil(round_us / us)));
    while (now_us() < until_us) us = std::min(us, product.us(count));
    return product.operations() / (us * 1e-6);
  }
}

}  // namespace lockstep
