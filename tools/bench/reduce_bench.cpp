// SPDX-License-Identifier: Apache-2.0
//
// What adding up gradients over ranks takes by itself: a reduce-scatter and an all-gather of a bucket of sixteen
// parameters, as the replicas of a program do it, in tree order. Or MPI_Allreduce of as many floats, to compare with;
// each is a start of its own, and tools/bench/reduce_bench.py lets them take turns.
//
//   mpirun -n 2 reduce_bench tree | mpi [MEBIBYTES ...]     prints for each size its median in microseconds
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/launcher.hpp"
#include "runtime/base/median.hpp"
#include "runtime/comm/mpi/mpi_endpoint.hpp"
#include "runtime/engine/bucket_sums.hpp"

namespace lockstep {
namespace {

const StopFlag never;
const WaitLimits kLimits{&never, std::chrono::milliseconds(60'000)};
constexpr int kRepeats = 11;
constexpr int kParameters = 16;

/// Hands out memory again once it is free, as the worker's caching allocator does.
class Reuse {
 public:
  at::Tensor operator()(at::IntArrayRef sizes, at::ScalarType dtype) {
    for (const at::Tensor& made : made_)
      if (made.use_count() == 1 && made.sizes() == sizes && made.scalar_type() == dtype) return made;
    return made_.emplace_back(at::zeros(sizes, at::device(at::kCPU).dtype(dtype)));
  }

 private:
  std::vector<at::Tensor> made_;
};

/// Parameters of so many floats together, one replica on each rank.
class Replica {
 public:
  Replica(MpiWorld& world, MpiEndpoint& endpoint, std::int64_t elements)
      : bucket_{StageId(0), std::vector<int>(kParameters, 0),
                Blocks(std::vector<Divided>(kParameters, elements / kParameters))},
        parameters_(kParameters),
        sums_(bucket_, work(world.size(), bucket_), world.rank(), all(), all()) {
    at_work_ = {world.rank(), {world.rank(), world.rank() + 1}};
    for (Parameter& parameter : parameters_) {
      parameter.value = at::zeros({elements / kParameters});
      parameter.at_work = &at_work_;
    }
    for (int other = 0; other < world.size(); ++other) {
      if (other == world.rank()) continue;
      Peer& peer = peers_.emplace_back(Peer{other});
      for (const int edge : {0, 1}) {
        peer.out.push_back(endpoint.sender(other, edge));
        peer.in.push_back(endpoint.receiver(other, edge, [reuse = &reuse_](at::IntArrayRef sizes, at::ScalarType type) {
          return (*reuse)(sizes, type);
        }));
      }
    }
  }

  /// All elements are the sum afterwards: what each rank has given.
  Tensors all_reduce(Tensors gradients) {
    for (std::size_t p = 0; p < parameters_.size(); ++p) parameters_[p].begin_gradient(std::move(gradients[p]));
    for (Peer& peer : peers_) peer.out[0]->send({0, 0, sums_.gradients_for(WorkerId(peer.rank))}, kLimits);
    for (Peer& peer : peers_) peer.in[0]->post();
    for (Peer& peer : peers_) sums_.put_gradients(peer.in[0]->receive(kLimits).tensors);
    sums_.reduce();
    for (Peer& peer : peers_) peer.out[1]->send({0, 0, sums_.sums_for(WorkerId(peer.rank))}, kLimits);
    for (Peer& peer : peers_) peer.in[1]->post();
    for (Peer& peer : peers_) sums_.put_sums(WorkerId(peer.rank), peer.in[1]->receive(kLimits).tensors);
    for (Peer& peer : peers_)
      for (const auto& out : peer.out) out->finish(kLimits);
    sums_.forget();
    for (std::size_t p = 0; p < parameters_.size(); ++p) gradients[p] = std::exchange(parameters_[p].gradient, {});
    return gradients;
  }

 private:
  struct Peer {
    int rank = 0;
    std::vector<std::unique_ptr<Channel>> out = {}, in = {};  // of the sums, of the gather
  };

  static BucketWork work(int replicas, const Bucket& bucket) {
    const Topology topology = replicated(chain_topology(1), {replicas, replicas, replicas});
    Wiring wiring;
    wiring.rows = replicas;
    for (int row = 0; row < replicas; ++row) wiring.row_of_stage.emplace_back(row);
    return work_on(bucket, topology, wiring);
  }

  std::vector<Parameter*> all() {
    std::vector<Parameter*> pointers;
    for (Parameter& parameter : parameters_) pointers.push_back(&parameter);
    return pointers;
  }

  Reuse reuse_;
  Bucket bucket_;
  GroupAtWork at_work_;
  std::vector<Parameter> parameters_;
  BucketSums sums_;
  std::vector<Peer> peers_;
};

void print(int rank, std::int64_t mebibytes, const std::vector<double>& us) {
  if (rank == 0) std::printf("%lld %.1f\n", static_cast<long long>(mebibytes), median(us));
}

std::int64_t elements_of(std::int64_t mebibytes) {
  return mebibytes * (1 << 20) / static_cast<std::int64_t>(sizeof(float));
}

void run_tree(MpiWorld& world, const std::vector<std::int64_t>& sizes) {
  const at::NoGradGuard no_grad;
  MpiEndpoint endpoint(world);
  for (const std::int64_t mebibytes : sizes) {
    Replica replica(world, endpoint, elements_of(mebibytes));
    Tensors gradients;
    for (int p = 0; p < kParameters; ++p)
      gradients.push_back(at::full({elements_of(mebibytes) / kParameters}, world.rank() + 1.0, at::kFloat));
    gradients = replica.all_reduce(std::move(gradients));
    const auto expected = static_cast<float>(world.size() * (world.size() + 1) / 2);
    for (at::Tensor& gradient : gradients) {
      if (!gradient.eq(expected).all().item<bool>()) throw Error("the sum is wrong");
      gradient.zero_();
    }
    std::vector<double> us;
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      world.barrier();
      const double start = now_us();
      gradients = replica.all_reduce(std::move(gradients));
      us.push_back(now_us() - start);
    }
    print(world.rank(), mebibytes, us);
  }
}

void run_mpi(MpiWorld& world, const std::vector<std::int64_t>& sizes) {
  for (const std::int64_t mebibytes : sizes) {
    std::vector<float> gradient(static_cast<std::size_t>(elements_of(mebibytes)), 0.0f);
    std::vector<double> us;
    for (int repeat = 0; repeat < kRepeats + 1; ++repeat) {
      MPI_Barrier(MPI_COMM_WORLD);
      const double start = now_us();
      MPI_Allreduce(MPI_IN_PLACE, gradient.data(), static_cast<int>(gradient.size()), MPI_FLOAT, MPI_SUM,
                    MPI_COMM_WORLD);
      if (repeat > 0) us.push_back(now_us() - start);
    }
    print(world.rank(), mebibytes, us);
  }
}

int run(const std::vector<std::string>& arguments) {
  const std::string mode = arguments.empty() ? "" : arguments[0];
  std::vector<std::int64_t> sizes;
  for (std::size_t i = 1; i < arguments.size(); ++i) sizes.push_back(std::atoll(arguments[i].c_str()));
  if (sizes.empty()) sizes = {1, 4, 16, 64, 256};
  if (!launched() || (mode != "tree" && mode != "mpi"))
    throw UserError("start it under mpirun: mpirun -n 2 reduce_bench tree | mpi [MEBIBYTES ...]");
  at::set_num_threads(1);
  MpiWorld world;
  mode == "tree" ? run_tree(world, sizes) : run_mpi(world, sizes);
  std::fflush(stdout);
  world.leave(0);  // over TCP MPI_Finalize may not end
  return 0;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  try {
    return lockstep::run({argv + 1, argv + argc});
  } catch (const lockstep::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
