// SPDX-License-Identifier: Apache-2.0
//
// Random numbers that depend on what is computed, never on where or in which order.
//
// LibTorch has one CPU generator per process, and dropout, attention dropout and most initialisers take no other:
// threads that share it draw each other's numbers. Lockstep overrides the CPU random kernels at the dispatcher: while a
// RandomScope is open on a thread, every random operator that was called without a generator draws from that scope's
// stream. Outside a scope LibTorch behaves as ever.
//
// Streams: forward of a layer: mix(run seed, step, global micro-batch, layer name); initial value of a parameter:
// mix(run seed, parameter name). docs/numerics.md writes the function down.
#pragma once

#include <cstdint>
#include <string_view>

namespace lockstep {

/// 64 bits out of (seed, a, b, name): splitmix64 finaliser over the words, FNV-1a over the name. Fixed for ever:
/// changing it changes every run.
std::uint64_t mix_seed(std::uint64_t seed, std::uint64_t a, std::uint64_t b, std::string_view name);

/// While alive, random operators on this thread draw from a stream seeded with `seed`.
/// Scopes do not nest: the caller is the engine, around one forward of one layer.
class RandomScope {
 public:
  explicit RandomScope(std::uint64_t seed);
  ~RandomScope();
  RandomScope(const RandomScope&) = delete;
  RandomScope& operator=(const RandomScope&) = delete;
};

}  // namespace lockstep
