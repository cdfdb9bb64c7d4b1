// SPDX-License-Identifier: Apache-2.0
//
// How the gradients, the weights or the optimizer state of a bucket are divided among those who work on them together.
// Nothing is cut but between blocks of a parameter, of kNormBlock elements or of rows: whatever is computed from a
// block by itself, a sum of squares or an update of each element, is then the same bits wherever it is computed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/base/tree_sum.hpp"

namespace lockstep {

/// Elements of which a sum of squares is made by itself.
inline constexpr std::int64_t kNormBlock = 65536;

/// Elements [begin, end) of one parameter.
struct Slice {
  int parameter = 0;  ///< position in the bucket
  std::int64_t begin = 0, end = 0;
  std::int64_t elements() const { return end - begin; }
  bool operator==(const Slice&) const = default;
};

/// What is divided of one parameter.
struct Divided {
  Divided(std::int64_t all, std::int64_t of_block = kNormBlock)  // NOLINT(google-explicit-constructor): of elements
      : elements(all), block(of_block) {}
  /// Of a sparse one, of which so many have gradients, at most: it is a single block.
  static Divided sparse(std::int64_t all, std::int64_t with_gradients) {
    Divided divided(all, std::max<std::int64_t>(all, 1));
    divided.with_gradients = with_gradients;
    return divided;
  }
  std::int64_t elements = 0;
  std::int64_t block = kNormBlock;                  ///< elements of each but the last
  std::optional<std::int64_t> with_gradients = {};  ///< absent: all
};

/// All blocks of a bucket's parameters, one after the other. A share is a run of blocks.
class Blocks {
 public:
  Blocks() = default;
  explicit Blocks(std::vector<Divided> parameters);

  int count() const { return first_block_.back(); }
  /// With gradients.
  std::int64_t elements() const;
  std::int64_t elements(TermRange blocks) const;
  /// With gradients or not.
  std::int64_t stored(TermRange blocks) const;
  std::vector<Slice> slices(TermRange blocks) const;

  /// `parts` shares, one after the other and about equally large; some are empty where there are fewer blocks. Each
  /// border is that of a parameter where that makes no share larger by more than 5 % of an equal one, or if `whole`.
  std::vector<TermRange> divided(int parts, bool whole = false) const;

 private:
  std::vector<Divided> parameters_;
  std::vector<int> first_block_ = {0};  ///< by parameter; and one more
};

/// Blocks that both have, empty at `a`'s beginning if there are none.
TermRange both_of(TermRange a, TermRange b);

}  // namespace lockstep
