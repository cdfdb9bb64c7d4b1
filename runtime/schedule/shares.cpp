// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/shares.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace lockstep {

Blocks::Blocks(std::vector<std::int64_t> elements_of_parameters) : elements_(std::move(elements_of_parameters)) {
  for (const std::int64_t elements : elements_)
    first_block_.push_back(first_block_.back() + static_cast<int>((elements + kNormBlock - 1) / kNormBlock));
}

std::int64_t Blocks::elements() const {
  return std::accumulate(elements_.begin(), elements_.end(), std::int64_t{0});
}

std::int64_t Blocks::elements(TermRange blocks) const {
  std::int64_t sum = 0;
  for (const Slice& slice : slices(blocks)) sum += slice.elements();
  return sum;
}

std::vector<Slice> Blocks::slices(TermRange blocks) const {
  std::vector<Slice> slices;
  for (std::size_t p = 0; p < elements_.size(); ++p) {
    const TermRange here = both_of({first_block_[p], first_block_[p + 1]}, blocks);
    if (here.begin >= here.end) continue;
    const std::int64_t begin = (here.begin - first_block_[p]) * kNormBlock;
    slices.push_back({static_cast<int>(p), begin, std::min((here.end - first_block_[p]) * kNormBlock, elements_[p])});
  }
  return slices;
}

std::vector<TermRange> Blocks::divided(int parts, bool whole) const {
  // Elements in front of each block, and of all.
  std::vector<std::int64_t> before = {0};
  std::vector<int> at_parameters;  // blocks with which a parameter begins, and the end
  for (std::size_t p = 0; p < elements_.size(); ++p) {
    if (first_block_[p] < first_block_[p + 1]) at_parameters.push_back(first_block_[p]);
    for (int block = first_block_[p]; block < first_block_[p + 1]; ++block)
      before.push_back(std::min((block - first_block_[p] + 1) * kNormBlock, elements_[p]) + before[first_block_[p]]);
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
