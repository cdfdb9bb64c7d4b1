// SPDX-License-Identifier: Apache-2.0
//
// What a server of weights lets through, and when: the order of reads and updates, without a tensor. Pure, so that a
// test explores all orders in which messages can come (tests/unit/server_protocol_test.cpp).
//
// The version of a server is the number of updates that it has made. A worker reads, computes, and updates; the
// staleness of its update is the number of updates of others that were made in between. With a most staleness K > 0
// each update is made by itself, and one that would make another's too stale waits for that one. That can always be
// kept: of n workers that have read and not updated, in the order in which they read, the i-th (from 0) still may have
// i updates made before its own, so
//
//   version + i - (the version that the i-th has read) <= K     for each i,
//
// and who has read first may always go ahead. A read is let through at once: ShareBook has no more than K + 1 shares
// under way. (Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", NIPS 2013,
// bounds clocks; here it is the versions, of each update.)
//
// With K = 0 all shares of a mini-batch are one update, which is made when all of them are in and one worker, who then
// knows the gradients' norm over all servers, settles it. Nothing waits here: ShareBook hands out nothing of the next
// step before.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

namespace lockstep {

class UpdateGate {
 public:
  enum class What { read, update, settle, leave };
  /// A request that is answered now.
  struct Let {
    What what = What::read;
    int worker = 0;
    std::int64_t staleness = 0;  ///< of an update
    /// Of an update or a settlement: it is made now. False: it had been made, by a worker that left before it was
    /// known to be done, or by another's settlement.
    bool makes = true;
    auto operator<=>(const Let&) const = default;
  };

  /// `steps`: so many updates of whole mini-batches have been made. `shares`: of a full mini-batch.
  UpdateGate(int max_staleness, int shares, std::int64_t steps = 0)
      : most_(max_staleness), shares_(shares), version_(steps) {}

  std::vector<Let> read(int worker);
  /// Whether this share's update is known already: then what comes with another one is not wanted.
  bool knows(std::int64_t step, int share) const;
  std::vector<Let> update(int worker, std::int64_t step, int share);
  /// With a most staleness of 0: all shares are in.
  std::vector<Let> settle(int worker, std::int64_t step);
  /// It asks for nothing any more, and may have left something undone. What it has sent counts, so another worker may
  /// do its share again when it has left all servers.
  std::vector<Let> leave(int worker);

  /// Whose update others wait for; -1: nobody waits.
  int waits_for() const;
  std::int64_t version() const { return version_; }
  auto operator<=>(const UpdateGate&) const = default;

 private:
  struct Waiting {
    int worker = 0;
    std::int64_t number = 0;  // of the update
    auto operator<=>(const Waiting&) const = default;
  };
  std::int64_t number_of(std::int64_t step, int share) const { return step * shares_ + share; }
  bool is_synchronous() const { return most_ == 0; }
  bool may_update(int worker) const;
  void pass_updates(std::vector<Let>& let);

  int most_, shares_;
  std::int64_t version_;
  std::map<int, std::int64_t> read_;  // by worker that has read and not updated: the version
  std::vector<Waiting> updates_;      // in the order in which they came
  std::map<int, std::int64_t> last_;  // by worker: the number of its last update that came
  std::set<std::int64_t> left_;       // the same of those that have left
  std::set<int> shares_in_;           // with a most staleness of 0: of the next update
};

}  // namespace lockstep
