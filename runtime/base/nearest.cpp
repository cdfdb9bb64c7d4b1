// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/nearest.hpp"

#include <algorithm>
#include <cctype>

#include "runtime/base/error.hpp"

namespace lockstep {

std::string normal_word(const std::string& word) {
  std::string result = word;
  for (char& c : result) c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

namespace {

/// Damerau-Levenshtein (optimal string alignment): insertions, deletions, replacements, swaps of neighbours.
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> two_back;
  std::vector<std::size_t> back(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) back[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::vector<std::size_t> row(b.size() + 1);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({back[j] + 1, row[j - 1] + 1, back[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], two_back[j - 2] + 1);
    }
    two_back = std::move(back);
    back = std::move(row);
  }
  return back[b.size()];
}

}  // namespace

std::optional<std::string> nearest(const std::string& word, const std::vector<std::string>& candidates) {
  constexpr std::size_t longest_name = 64;
  constexpr std::size_t shortest_prefix = 3;
  if (word.size() > longest_name) return std::nullopt;
  const std::string wanted = normal_word(word);
  const std::vector<std::string> known = own_names(word);
  // The later ones are of smaller places: an item of model.layers has `inputs` too, but means by in_features its `in`.
  for (auto name = known.rbegin(); name != known.rend(); ++name) {
    std::string ours = name->substr(name->rfind('.') + 1);
    if (std::find(candidates.begin(), candidates.end(), ours) != candidates.end()) return ours;
  }
  const std::size_t furthest = std::max<std::size_t>(1, wanted.size() / 3);
  const auto other_length = [&](const std::string& name) {
    return name.size() > wanted.size() ? name.size() - wanted.size() : wanted.size() - name.size();
  };
  std::optional<std::string> best;
  std::size_t best_distance = 0;
  for (const std::string& candidate : candidates) {
    const std::size_t away = distance(wanted, normal_word(candidate));
    if (away > furthest || away >= std::max(wanted.size(), candidate.size())) continue;
    // Of two that are equally near, the one of the same length: a slip replaces more often than it drops.
    const bool nearer =
        !best || away < best_distance || (away == best_distance && other_length(candidate) < other_length(*best));
    if (!nearer) continue;
    best = candidate;
    best_distance = away;
  }
  if (best || wanted.size() < shortest_prefix) return best;
  const auto longer = std::find_if(candidates.begin(), candidates.end(), [&](const std::string& candidate) {
    return normal_word(candidate).starts_with(wanted);
  });
  return longer == candidates.end() ? std::nullopt : std::optional(*longer);
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const auto name = nearest(word, candidates);
  return name ? concat("; did you mean '", *name, "'?") : "";
}

}  // namespace lockstep
