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

int Replicas::sums_of(int replica) const {
  const TermRange mine = groups_of(replica);
  const auto nothing = [](char, char) { return '\0'; };
  TreeSum<char> sum;
  for (int group = mine.begin; group < std::min(mine.end, groups); ++group) sum.push(group, '\0', mine, nothing);
  return static_cast<int>(sum.finish(mine, nothing).size());
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
