// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/shares.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace lockstep {

Blocks::Blocks(std::vector<Divided> parameters) : parameters_(std::move(parameters)) {
  for (const Divided& parameter : parameters_)
    first_block_.push_back(first_block_.back() +
                           static_cast<int>((parameter.elements + parameter.block - 1) / parameter.block));
}

std::int64_t Blocks::elements() const {
  return elements({0, count()});
}

std::int64_t Blocks::elements(TermRange blocks) const {
  std::int64_t sum = 0;
  for (const Slice& slice : slices(blocks))
    sum += parameters_[static_cast<std::size_t>(slice.parameter)].with_gradients.value_or(slice.elements());
  return sum;
}

std::int64_t Blocks::stored(TermRange blocks) const {
  std::int64_t sum = 0;
  for (const Slice& slice : slices(blocks)) sum += slice.elements();
  return sum;
}

std::vector<Slice> Blocks::slices(TermRange blocks) const {
  std::vector<Slice> slices;
  for (std::size_t p = 0; p < parameters_.size(); ++p) {
    const TermRange here = both_of({first_block_[p], first_block_[p + 1]}, blocks);
    if (here.begin >= here.end) continue;
    const auto [elements, block, with_gradients] = parameters_[p];
    const std::int64_t begin = (here.begin - first_block_[p]) * block;
    slices.push_back({static_cast<int>(p), begin, std::min((here.end - first_block_[p]) * block, elements)});
  }
  return slices;
}

std::vector<TermRange> Blocks::divided(int parts, bool whole) const {
  // Elements with gradients in front of each block, and all of them.
  std::vector<std::int64_t> before = {0};
  std::vector<int> at_parameters;  // blocks with which a parameter begins, and the end
  for (std::size_t p = 0; p < parameters_.size(); ++p) {
    if (first_block_[p] < first_block_[p + 1]) at_parameters.push_back(first_block_[p]);
    for (int block = first_block_[p]; block < first_block_[p + 1]; ++block)
      before.push_back(elements({first_block_[p], block + 1}) + before[first_block_[p]]);
  }
  at_parameters.push_back(count());
  const auto at = [&](int block) { return before[static_cast<std::size_t>(block)]; };
  // Of ascending candidates the one in front of which there are most nearly `wanted` elements.
  const auto nearest = [&](const auto& candidates, double wanted) {
    return *std::min_element(candidates.begin(), candidates.end(), [&](int a, int b) {
      return std::abs(static_cast<double>(at(a)) - wanted) < std::abs(static_cast<double>(at(b)) - wanted);
    });
  };
  std::vector<int> all(before.size());
  std::iota(all.begin(), all.end(), 0);
  const double share = static_cast<double>(elements()) / parts;
  std::vector<TermRange> shares;
  int begin = 0;
  for (int part = 1; part <= parts; ++part) {
    int end = nearest(at_parameters, share * part);
    // A border in each direction may be off: half of the 5 % for each.
    if (!whole && std::abs(static_cast<double>(at(end)) - share * part) > 0.025 * share)
      end = nearest(all, share * part);
    end = std::max(end, begin);
    shares.push_back({begin, end});
    begin = end;
  }
  return shares;
}

TermRange both_of(TermRange a, TermRange b) {
  const int begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

}  // namespace lockstep
