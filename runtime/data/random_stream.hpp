// SPDX-License-Identifier: Apache-2.0
//
// The random numbers of the data: which sample comes when, and what synthetic samples hold. Private to this folder.
//
// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014; constants of S. Vigna's
// public-domain code): the n-th number is a fixed function of key + n * 0x9e3779b97f4a7c15, so a stream costs nothing
// to start, and whoever needs random access starts a stream per thing: RandomStream(mix_seed(seed, index, 0, "what
// for")). Not LibTorch's generator: its numbers may change with the release, and it is one per process. Changing a line
// here changes every run.
#pragma once

#include <cstdint>

namespace lockstep {

class RandomStream {
 public:
  explicit RandomStream(std::uint64_t key) : state_(key) {}

  /// 64 random bits.
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// In [0, 1), a multiple of 2^-53.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  /// In 0..n-1, every value equally likely (rejects the uneven rest of 2^64). n >= 1.
  std::uint64_t below(std::uint64_t n);
  /// Mean 0, variance 1: Box and Muller, Annals of Mathematical Statistics 29 (1958); the second of each pair is kept.
  double normal();

 private:
  std::uint64_t state_;
  double kept_ = 0;
  bool has_kept_ = false;
};

}  // namespace lockstep
