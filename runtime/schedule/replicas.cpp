// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/replicas.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace lockstep {
namespace {

int part_of(int number, int parts, int all) {
  return static_cast<int>(static_cast<std::int64_t>(number) * parts / all);
}

/// The first number of part `part`.
int begin_of(int part, int parts, int all) {
  return static_cast<int>((static_cast<std::int64_t>(part) * all + parts - 1) / parts);
}

}  // namespace

int Replicas::group_of(int micro_batch) const {
  return groups == 1 ? 0 : part_of(micro_batch, groups, micro_batches);
}

TermRange Replicas::groups_of(int replica) const {
  const bool last = replica + 1 == count;
  return {begin_of(replica, count, groups),
          last ? std::numeric_limits<int>::max() : begin_of(replica + 1, count, groups)};
}

namespace {

/// The sums of a replica's groups, which follow one another: those that are left, and the most that there were.
struct SumsOfGroups {
  int left = 0, most = 0;
};

SumsOfGroups sums_of_groups(TermRange mine, int groups) {
  const auto nothing = [](char, char) { return '\0'; };
  SumsOfGroups result;
  TreeSum<char> sum;
  for (int group = mine.begin; group < std::min(mine.end, groups); ++group) {
    sum.push(group, '\0', mine, nothing);
    result.most = std::max(result.most, static_cast<int>(sum.nodes().size()));
  }
  result.left = static_cast<int>(sum.finish(mine, nothing).size());
  return result;
}

}  // namespace

int Replicas::sums_of(int replica) const {
  return sums_of_groups(groups_of(replica), groups).left;
}

int Replicas::most_sums_of(int replica) const {
  return sums_of_groups(groups_of(replica), groups).most;
}

int Replicas::replica_of(int micro_batch) const {
  return part_of(group_of(micro_batch), count, groups);
}

TermRange Replicas::micro_batches_of(int replica, int of) const {
  if (count == 1) return {0, of};
  const auto first = [&](int at) { return std::min(begin_of(begin_of(at, count, groups), groups, micro_batches), of); };
  return {first(replica), first(replica + 1)};
}

int Replicas::most_micro_batches() const {
  int most = 0;
  for (int replica = 0; replica < count; ++replica) {
    const TermRange run = micro_batches_of(replica, micro_batches);
    most = std::max(most, run.end - run.begin);
  }
  return most;
}

}  // namespace lockstep
