// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "runtime/base/check.hpp"
#include "tools/command.hpp"

#ifdef LOCKSTEP_WITH_MPI
#include "runtime/comm/mpi/mpi_endpoint.hpp"
#endif

namespace lockstep {

#ifdef LOCKSTEP_WITH_MPI

namespace {

class MpiLinks : public RemoteLinks {
 public:
  MpiLinks(MpiWorld& world, int workers_here) : endpoint_(world, options(workers_here)) {}
  std::unique_ptr<Channel> sender(RankId to, int edge) override { return endpoint_.sender(to.value(), edge); }
  std::unique_ptr<Channel> receiver(RankId from, int edge) override { return endpoint_.receiver(from.value(), edge); }

 private:
  static MpiEndpointOptions options(int workers_here) {
    MpiEndpointOptions options;
    options.workers = workers_here;
    return options;
  }
  MpiEndpoint endpoint_;
};

}  // namespace

struct Process::Mpi {
  MpiWorld world;
  std::unique_ptr<MpiLinks> links;
};

Process::Process() {
  if (!MpiWorld::launched()) return;
  mpi_ = std::make_unique<Mpi>();
  ranks_.here = RankId(mpi_->world.rank());
  ranks_.count = mpi_->world.size();
}

void Process::connect(Trainer& trainer) {
  if (size() == 1) return;
  const std::vector<RankId>& ranks = trainer.layout().rank_of_row;
  const auto workers_here = std::count(ranks.begin(), ranks.end(), ranks_.here);
  mpi_->links = std::make_unique<MpiLinks>(mpi_->world, static_cast<int>(workers_here));
  ranks_.remote = mpi_->links.get();
  trainer.connect(ranks_);
}

std::vector<std::string> Process::all_gather(const std::string& value, std::chrono::milliseconds timeout) {
  return size() > 1 ? mpi_->world.all_gather(value, timeout) : std::vector<std::string>{value};
}

void Process::fail(const Error& error) {
  const int code = static_cast<int>(error.exit_code());
  std::cerr << "lockstep: " << (size() > 1 ? concat("rank ", rank(), ", ") : "") << error.what() << std::endl;
  if (size() > 1) mpi_->world.abort(code);
  std::_Exit(code);
}

#else

struct Process::Mpi {};

Process::Process() {
  for (const char* variable : {"PMI_SIZE", "OMPI_COMM_WORLD_SIZE"})
    if (const char* size = std::getenv(variable); size && std::atoi(size) > 1)
      throw UserError(concat("started by an MPI launcher with ", size,
                             " ranks, but this lockstep was built with LOCKSTEP_MPI=OFF; build with MPI, or run without mpirun"));
}
void Process::connect(Trainer&) {}
std::vector<std::string> Process::all_gather(const std::string& value, std::chrono::milliseconds) { return {value}; }
void Process::fail(const Error& error) {
  std::cerr << "lockstep: " << error.what() << std::endl;
  std::_Exit(static_cast<int>(error.exit_code()));
}

#endif

Process::~Process() = default;

void Process::together(const std::function<void()>& work) {
  std::string failure;
  try {
    work();
  } catch (const UserError& error) {
    failure = error.what();
  }
  const std::vector<std::string> failures = all_gather(failure);
  for (int rank = 0; rank < size(); ++rank) {
    if (failures[rank].empty()) continue;
    if (is_root()) std::cerr << "lockstep: " << (rank > 0 ? concat("rank ", rank, ": ") : "") << failures[rank] << std::endl;
    throw AlreadyReported{static_cast<int>(ExitCode::user_input)};
  }
}

}  // namespace lockstep
