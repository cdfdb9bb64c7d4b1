// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/random_stream.hpp"

#include <cmath>
#include <numbers>

namespace lockstep {

std::uint64_t RandomStream::below(std::uint64_t n) {
  const std::uint64_t uneven = (0 - n) % n;  // 2^64 mod n
  std::uint64_t bits = next();
  while (bits < uneven) bits = next();
  return bits % n;
}

double RandomStream::normal() {
  if (has_kept_) {
    has_kept_ = false;
    return kept_;
  }
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));  // 1 - u is never 0
  const double angle = 2.0 * std::numbers::pi * uniform();
  kept_ = radius * std::sin(angle);
  has_kept_ = true;
  return radius * std::cos(angle);
}

}  // namespace lockstep
