// SPDX-License-Identifier: Apache-2.0
//
// A sum over numbered terms, added in a balanced binary tree that is aligned by number:
//
//   ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))
//
// A term that is missing is skipped, not added as a zero: without 2 the left half is (0 + 1) + 3. So whoever has a run
// of the terms can add up all subtrees that lie within it, and what several of them have made of their runs adds up to
// the same bits as if one had had all terms. While terms come in, the sums that wait for their other half are at most
// one per level of the tree: those of a binary counter.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace lockstep {

/// Terms [begin, end).
struct TermRange {
  int begin = 0, end = 0;
  bool operator==(const TermRange&) const = default;
};

/// The smallest subtree that has the terms a and b, both >= 0.
constexpr TermRange subtree_of(int a, int b) {
  const auto level = static_cast<int>(std::bit_width(static_cast<std::uint32_t>(a ^ b)));
  const int begin = (a >> level) << level;
  return {begin, begin + (1 << level)};
}

/// `Term`: movable.
template <typename Term>
class TreeSum {
 public:
  /// The sum of a subtree, or of those of its terms that there are.
  struct Node {
    int first = 0;  ///< the first term in it
    Term sum;
  };

  /// The next term, or the next subtree that somebody else has added up; its terms have higher numbers than all before.
  /// `mine`: the run whose subtrees may be added up here. `add(left, right)` gives left + right.
  template <typename Add>
  void push(int number, Term term, TermRange mine, const Add& add) {
    merge({mine.begin, number}, add);
    nodes_.push_back({number, std::move(term)});
  }
  /// No term of `mine` is to come: what is left cannot be added up without others. Of all terms that is one sum, or
  /// none where there were no terms. Empty from here on.
  template <typename Add>
  std::vector<Node> finish(TermRange mine, const Add& add) {
    merge(mine, add);
    return std::exchange(nodes_, {});
  }

  const std::vector<Node>& nodes() const { return nodes_; }
  void clear() { nodes_.clear(); }

 private:
  /// Adds up the subtrees that lie within `complete`.
  template <typename Add>
  void merge(TermRange complete, const Add& add) {
    while (nodes_.size() >= 2) {
      Node &left = nodes_[nodes_.size() - 2], &right = nodes_.back();
      const TermRange both = subtree_of(left.first, right.first);
      if (both.begin < complete.begin || both.end > complete.end) return;
      left.sum = add(std::move(left.sum), std::move(right.sum));
      nodes_.pop_back();
    }
  }

  std::vector<Node> nodes_;
};

}  // namespace lockstep
