// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/job_shape.hpp"

#include <algorithm>

#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

std::string counted(int count, const char* what) {
  return concat(count, " ", what, count == 1 ? "" : "s");
}

}  // namespace

int JobShape::host_of_rank(int rank) const {
  for (std::size_t host = 0; host < hosts.size(); ++host) {
    if (rank < hosts[host].slots) return static_cast<int>(host);
    rank -= hosts[host].slots;
  }
  return -1;
}

std::optional<JobShape> without(const JobShape& before, const Lost& lost) {
  JobShape after = before;
  for (const LostRank& rank : lost.ranks)
    if (const int host = before.host_of_rank(rank.rank); host >= 0) --after.hosts[static_cast<std::size_t>(host)].slots;
  std::erase_if(after.hosts, [&](const HostSlots& host) {
    return host.slots <= 0 || std::find(lost.hosts.begin(), lost.hosts.end(), host.name) != lost.hosts.end();
  });
  const int left = std::min(slots_of(after.hosts), before.ranks), workers = before.pipeline_workers;
  if (left == 0) return std::nullopt;
  after.replicas = std::min(before.replicas, left * before.most_on_a_rank() / workers);
  const bool fits = after.replicas > 0;
  after.replicas = std::max(after.replicas, 1);
  after.ranks = fits ? std::min(left, after.replicas * workers) : left;
  return after;
}

std::string text_of(const Lost& lost) {
  std::vector<std::string> parts;
  for (const std::string& host : lost.hosts) parts.push_back(concat("host ", host, " (no answer)"));
  for (const LostRank& rank : lost.ranks)
    parts.push_back(concat("rank ", rank.rank, " (", rank.certain ? "" : "probably first; ",
                           rank.how.empty() ? "killed" : rank.how, ")"));
  return join(parts);
}

std::string text_of(const JobShape& shape, const JobShape& before) {
  std::string text = concat(counted(shape.ranks, "rank"), ", ", counted(shape.replicas, "replica"), " of ",
                            counted(shape.pipeline_workers, "worker"));
  const int now = shape.most_on_a_rank(), then = before.most_on_a_rank();
  if (now > then) text += concat(", up to ", now, " workers on a rank (", then, " before)");
  return text;
}

}  // namespace lockstep
