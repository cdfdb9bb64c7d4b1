// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/philox.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

namespace lockstep {
namespace {

constexpr int kRounds = 10;
constexpr std::uint64_t kMultiply0 = 0xD2511F53, kMultiply1 = 0xCD9E8D57;
constexpr std::uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;

constexpr std::int64_t kWords = 4;
constexpr std::int64_t kBlocksAtOnce = 1 << 20;  // of a device: a word of each is 8 MiB of int64
constexpr std::int64_t kGrain = 1 << 12;

std::uint32_t low(std::uint64_t x) {
  return static_cast<std::uint32_t>(x);
}
std::uint32_t high(std::uint64_t x) {
  return static_cast<std::uint32_t>(x >> 32);
}

struct Draw {
  PhiloxKey key;
  std::uint32_t call;
  std::int64_t below;  // from 0 to 2^32
};

void fill_on_cpu(const at::Tensor& mask, const Draw& draw) {
  bool* kept = mask.mutable_data_ptr<bool>();
  const std::int64_t count = mask.numel();
  at::parallel_for(0, (count + kWords - 1) / kWords, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const auto number = static_cast<std::uint64_t>(block);
      const PhiloxCounter words = philox({low(number), high(number), draw.call, 0}, draw.key);
      const std::int64_t first = block * kWords, here = std::min(kWords, count - first);
      for (std::int64_t i = 0; i < here; ++i) kept[first + i] = words[i] < draw.below;
    }
  });
}

constexpr std::int64_t kWord = 0xFFFFFFFF;

/// Of words, which are int64 from 0 to 2^32 - 1. It wraps around as that of unsigned words does; the shift brings the
/// sign along, which the mask takes away.
struct Product {
  at::Tensor high, low;

  Product(const at::Tensor& word, std::uint64_t multiply) : low(word * static_cast<std::int64_t>(multiply)) {
    high = low.bitwise_right_shift(32).bitwise_and_(kWord);
    low.bitwise_and_(kWord);
  }
};

/// Blocks from `first` on: [blocks, 4].
at::Tensor composed(std::int64_t first, std::int64_t blocks, at::Device device, const Draw& draw) {
  const auto options = at::TensorOptions(at::kLong).device(device);
  at::Tensor x0 = at::arange(first, first + blocks, options);
  at::Tensor x1 = x0.bitwise_right_shift(32);
  x0.bitwise_and_(kWord);
  at::Tensor x2 = at::full({blocks}, std::int64_t{draw.call}, options), x3 = at::zeros({blocks}, options);
  PhiloxKey key = draw.key;
  for (int round = 0; round < kRounds; ++round) {
    const Product product0(x0, kMultiply0), product1(x2, kMultiply1);
    x0 = product1.high.bitwise_xor_(x1).bitwise_xor_(std::int64_t{key[0]});
    x1 = product1.low;
    x2 = product0.high.bitwise_xor_(x3).bitwise_xor_(std::int64_t{key[1]});
    x3 = product0.low;
    key = {key[0] + kWeyl0, key[1] + kWeyl1};
  }
  return at::stack({x0.lt(draw.below), x1.lt(draw.below), x2.lt(draw.below), x3.lt(draw.below)}, 1);
}

}  // namespace

PhiloxCounter philox(PhiloxCounter x, PhiloxKey key) {
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t product0 = kMultiply0 * x[0], product1 = kMultiply1 * x[2];
    x = {high(product1) ^ x[1] ^ key[0], low(product1), high(product0) ^ x[3] ^ key[1], low(product0)};
    key = {key[0] + kWeyl0, key[1] + kWeyl1};
  }
  return x;
}

at::Tensor philox_mask(at::IntArrayRef sizes, at::Device device, double probability, std::uint64_t seed,
                       std::uint32_t call) {
  const Draw draw{{low(seed), high(seed)}, call, std::llround(probability * 0x1p32)};
  at::Tensor mask = at::empty(sizes, at::TensorOptions(at::kBool).device(device));
  if (device.is_cpu()) {
    fill_on_cpu(mask, draw);
    return mask;
  }
  const at::Tensor flat = mask.view({-1});
  for (std::int64_t begin = 0; begin < flat.numel(); begin += kBlocksAtOnce * kWords) {
    const std::int64_t count = std::min(kBlocksAtOnce * kWords, flat.numel() - begin);
    const at::Tensor kept = composed(begin / kWords, (count + kWords - 1) / kWords, device, draw);
    flat.narrow(0, begin, count).copy_(kept.view({-1}).narrow(0, 0, count));
  }
  return mask;
}

}  // namespace lockstep
