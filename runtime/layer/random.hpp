// SPDX-License-Identifier: Apache-2.0
//
// Random numbers that depend on what is computed, never on where or in which order.
//
// LibTorch has one CPU generator per process, and dropout, attention dropout and most initialisers take no other:
// threads that share it draw each other's numbers. Lockstep overrides the CPU random kernels at the dispatcher: while a
// RandomScope is open on a thread, every random operator that was called without a generator draws from that scope's
// stream. Outside a scope LibTorch behaves as ever.
//
// Of other devices there is one generator per device and process, and no operator is overridden: there layers drop by
// dropout() below, as all of ours do on every device.
//
// Streams: forward of a layer: mix(run seed, step, global micro-batch, layer name); initial value of a parameter:
// mix(run seed, parameter name). docs/numerics.md writes the function down.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/dropout_kernel.hpp"

namespace lockstep {

class LayerContext;

/// 64 bits out of (seed, a, b, name): splitmix64 finaliser over the words, FNV-1a over the name. Fixed for ever:
/// changing it changes every run.
std::uint64_t mix_seed(std::uint64_t seed, std::uint64_t a, std::uint64_t b, std::string_view name);

/// How far the streams of a scope have come.
struct RandomPlace {
  std::uint64_t seed = 0;
  DropoutKernel dropout = DropoutKernel::torch;
  std::uint32_t philox_calls = 0;
  std::vector<std::pair<at::Device, at::Tensor>> generators = {};  ///< states of those that have been drawn from
};

/// Of the scope that is open on this thread; CHECKs that one is.
RandomPlace random_place();

/// While alive, random operators on this thread draw from a stream seeded with `seed`; dropout() as `dropout` says.
/// Scopes do not nest: the caller is the engine, around one forward of one layer, or what a backward runs again.
class RandomScope {
 public:
  explicit RandomScope(std::uint64_t seed, DropoutKernel dropout = DropoutKernel::torch);
  /// Draws what was drawn behind that place.
  explicit RandomScope(const RandomPlace& place);
  ~RandomScope();
  RandomScope(const RandomScope&) = delete;
  RandomScope& operator=(const RandomScope&) = delete;
};

/// at::dropout for layers, on any device: in training each element of x is 0 with probability p, else divided by 1 - p.
/// Draws from the scope's stream, or its Philox (philox.hpp), in the order of the calls of one forward.
at::Tensor dropout(const LayerContext& context, const at::Tensor& x, double p);
at::Tensor dropout(const at::Tensor& x, double p);  ///< in training

/// Whether LibTorch's operators that drop elements of their own, such as attention, draw for x what dropout() would.
bool libtorch_draws_for(const at::Tensor& x);

}  // namespace lockstep
