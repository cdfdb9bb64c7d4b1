// SPDX-License-Identifier: Apache-2.0
//
// The gradients of one bucket, as one replica has them: their sums over groups of micro-batches and over replicas, and
// what the replicas hand each other for them (BucketWork). One thread.
#pragma once

#include <map>
#include <vector>

#include "runtime/layer/context.hpp"
#include "runtime/schedule/bucket_work.hpp"

namespace lockstep {

class BucketSums {
 public:
  /// `held`: as the layers hold them here, in the bucket's order; `kept`: where sums and values go, on the host with
  /// central storage, else the same. They and the bucket outlive it.
  BucketSums(const Bucket& bucket, BucketWork work, int replica, std::vector<Parameter*> held,
             std::vector<Parameter*> kept)
      : bucket_(bucket), work_(std::move(work)), replica_(replica), held_(std::move(held)), kept_(std::move(kept)) {}

  /// What the replica on another row needs of the gradients here, for its share. In process they are lent, not copied.
  Tensors gradients_for(WorkerId row);
  void put_gradients(const Tensors& of_another);
  /// Adds up this replica's share (BucketWork::sums) of all gradients, in the order of docs/numerics.md. They are in
  /// Parameter::gradient of `kept` from here on, the other elements of which are undefined.
  void reduce();

  /// Sums of gradients that another row updates with; and into Parameter::gradient.
  Tensors sums_for(WorkerId row) const;
  void put_sums(WorkerId from, const Tensors& sums);
  /// Values that were updated here; and into Parameter::value.
  Tensors values() const;
  void put_values(WorkerId from, const Tensors& values);

  /// By position in the bucket.
  std::vector<Slice> summed() const { return slices(work_.sums); }
  std::vector<Slice> updated() const { return slices(work_.updates); }
  /// The same of each replica whose memory this is, in order.
  std::vector<std::vector<Slice>> updated_in_memory() const;
  const std::vector<Parameter*>& parameters() const { return kept_; }

  /// Of gradients that are no longer, or not yet again, in Parameter::gradient.
  std::int64_t gradient_bytes() const;
  /// The step is over.
  void forget();

 private:
  /// What is added: elements of one slice, flat, or of a sparse parameter all that it has.
  struct Term {
    Gradient gradient;
    bool ours = false;  ///< may be written to
  };
  std::vector<Slice> slices(const std::vector<TermRange>& shares) const {
    return bucket_.blocks.slices(shares[static_cast<std::size_t>(replica_)]);
  }
  void add_up();
  Gradient own_part(const GroupSum& sum, const Slice& slice) const;
  Gradient sum_of(const Slice& slice);
  at::Tensor place_of_sum(const Slice& slice);
  bool has_place(const Slice& slice) const;
  Parameter& parameter(const Slice& slice) const { return *kept_[static_cast<std::size_t>(slice.parameter)]; }

  const Bucket& bucket_;
  BucketWork work_;
  int replica_;
  std::vector<Parameter*> held_, kept_;
  // Of this step, by parameter.
  bool added_up_ = false;
  std::vector<std::vector<GroupSum>> own_;       // whole tensors
  std::vector<std::vector<GroupSum>> received_;  // elements of this replica's slice
  std::map<int, at::Tensor> rows_;               // of sparse parameters whose sum is here, until the next step's
};

}  // namespace lockstep
