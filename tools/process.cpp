// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "runtime/base/check.hpp"
#include "tools/command.hpp"

#ifdef LOCKSTEP_WITH_MPI
#include "runtime/engine/mpi_links.hpp"
#endif

namespace lockstep {

#ifdef LOCKSTEP_WITH_MPI

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
  MpiEndpointOptions options;
  options.workers = static_cast<int>(workers_here);
  mpi_->links = std::make_unique<MpiLinks>(mpi_->world, options);
  ranks_.remote = mpi_->links.get();
  // Ranks of one host that were not bound apart by the launcher share its CPUs: those before us take theirs first.
  const std::vector<std::string> places = all_gather(concat(mpi_->world.host(), " ", join(allowed_cpus())));
  ranks_.workers_before = static_cast<int>(std::count_if(ranks.begin(), ranks.end(), [&](RankId other) {
    return other < ranks_.here &&
           places[static_cast<std::size_t>(other.value())] == places[static_cast<std::size_t>(rank())];
  }));
  trainer.connect(ranks_);
}

std::vector<std::string> Process::all_gather(const std::string& value, std::chrono::milliseconds timeout) {
  return size() > 1 ? mpi_->world.all_gather(value, timeout) : std::vector<std::string>{value};
}

void Process::leave() {
  // A launcher kills the other ranks of one that ends without MPI_Finalize, and a destructor that runs while an
  // exception is on its way cannot know that all ranks are on the same way.
  if (mpi_) mpi_->world.leave();
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
      throw UserError(
          concat("started by an MPI launcher with ", size,
                 " ranks, but this lockstep was built with LOCKSTEP_MPI=OFF; build with MPI, or run without mpirun"));
}
void Process::connect(Trainer&) {}
void Process::leave() {}
std::vector<std::string> Process::all_gather(const std::string& value, std::chrono::milliseconds) {
  return {value};
}
void Process::fail(const Error& error) {
  std::cerr << "lockstep: " << error.what() << std::endl;
  std::_Exit(static_cast<int>(error.exit_code()));
}

#endif

Process::~Process() = default;

namespace {

std::string first_different_line(const std::string& a, const std::string& b) {
  std::istringstream left(a), right(b);
  std::string ours, theirs;
  while (std::getline(left, ours)) {
    if (!std::getline(right, theirs)) theirs.clear();
    if (ours != theirs) return concat("'", theirs.substr(0, 80), "' against '", ours.substr(0, 80), "'");
  }
  return "its length";
}

}  // namespace

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
    if (is_root())
      std::cerr << "lockstep: " << (rank > 0 ? concat("rank ", rank, ": ") : "") << failures[rank] << std::endl;
    leave();
    throw AlreadyReported{static_cast<int>(ExitCode::user_input)};
  }
}

void Process::compare(const Trainer& trainer) {
  const std::vector<std::string> all = all_gather(trainer.agreement());
  together([&] {
    for (std::size_t rank = 1; rank < all.size(); ++rank)
      if (all[rank] != all[0])
        throw UserError(
            concat("rank ", rank, " differs from rank 0 in ", first_different_line(all[0], all[rank]),
                   "; give every rank the same file and overrides, the same build of lockstep and the same kind "
                   "of processor"));
  });
}

}  // namespace lockstep
