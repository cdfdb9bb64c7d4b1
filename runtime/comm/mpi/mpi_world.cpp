// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi/mpi_world.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string_view>
#include <thread>

#include "runtime/comm/backoff.hpp"
#include "runtime/comm/channel.hpp"
#include "runtime/comm/mpi/mpi_call.hpp"

namespace lockstep {
namespace {

using mpi::check;

int number_in_environment(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}

int init_thread() {
  int provided = MPI_THREAD_SINGLE;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), {"MPI_Init_thread"});
  return provided;
}

int tag_limit_of(MPI_Comm comm) {
  int* limit = nullptr;
  int found = 0;
  check(MPI_Comm_get_attr(comm, MPI_TAG_UB, &limit, &found), {"MPI_Comm_get_attr(MPI_TAG_UB)"});
  return found != 0 ? *limit : 32767;
}

std::string host_name() {
  char name[MPI_MAX_PROCESSOR_NAME] = "";
  int length = 0;
  check(MPI_Get_processor_name(name, &length), {"MPI_Get_processor_name"});
  return std::string(name, static_cast<std::size_t>(length));
}

std::string library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  check(MPI_Get_library_version(text, &length), {"MPI_Get_library_version"});
  std::string line(text, static_cast<std::size_t>(length));
  line = line.substr(0, line.find('\n'));
  std::replace(line.begin(), line.end(), '\t', ' ');
  return line;
}

std::string name_of_level(int level) {
  switch (level) {
    case MPI_THREAD_SINGLE: return "MPI_THREAD_SINGLE";
    case MPI_THREAD_FUNNELED: return "MPI_THREAD_FUNNELED";
    case MPI_THREAD_SERIALIZED: return "MPI_THREAD_SERIALIZED";
    default: return "MPI_THREAD_MULTIPLE";
  }
}

/// What a gather reads and writes. On an error it is leaked: MPI may still write to it.
struct Gather {
  std::string mine, all;
  std::int64_t my_bytes = 0;
  std::vector<std::int64_t> bytes;
  std::vector<int> counts, offsets;

  void lay_out() {
    std::int64_t total = 0;
    for (std::int64_t size : bytes) {
      counts.push_back(mpi::to_count(size));
      offsets.push_back(mpi::to_count(total));
      total += size;
    }
    all.resize(static_cast<std::size_t>(total));
  }
};

}  // namespace

void MpiWorld::State::require(int code, const mpi::Call& call) {
  if (code != MPI_SUCCESS) failed = true;
  check(code, call);
}

void MpiWorld::State::wait(MPI_Request request, const char* operation, std::chrono::milliseconds timeout) {
  Backoff backoff;
  WaitClock clock;
  while (true) {
    int done = 0;
    {
      std::lock_guard lock(mutex);
      require(MPI_Test(&request, &done, MPI_STATUS_IGNORE), {operation});
    }
    if (done != 0) return;
    if (backoff.spin()) continue;
    if (clock.look() >= timeout) {
      failed = true;
      throw WaitTimeout(
          concat(operation, ": rank ", rank, " waited ", timeout.count(), " ms for the other ", size - 1, " ranks"));
    }
    backoff.sleep();
  }
}

void MpiWorld::check_launcher(int world_size) {
  if (world_size != 1) return;
  if (const int tasks = number_in_environment("SLURM_STEP_NUM_TASKS"); tasks > 1)
    throw UserError(
        concat("srun started ", tasks,
               " tasks, but MPI sees a world of 1: srun and this MPI do not speak the "
               "same PMI, and every task would train alone. Start with `srun --mpi=pmi2 ...` (`srun --mpi=list` "
               "shows what there is), or with `salloc -n ",
               tasks, " mpirun ...`"));
  if (const int tasks = number_in_environment("OMPI_COMM_WORLD_SIZE"); tasks > 1)
    throw UserError(concat("mpirun started ", tasks,
                           " processes, but MPI sees a world of 1: this is the mpirun of Open MPI, "
                           "and Lockstep was built with another MPI. Use the mpirun of the MPI it was built with"));
}

MpiWorld::MpiWorld() : state_(std::make_unique<State>()) {
  const int provided = init_thread();
  // Straight after Init: until here, and on any communicator left out, MPI aborts inside the failing call.
  for (MPI_Comm comm : {MPI_COMM_WORLD, MPI_COMM_SELF})
    check(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), {"MPI_Comm_set_errhandler"});
  check(MPI_Comm_rank(MPI_COMM_WORLD, &state_->rank), {"MPI_Comm_rank"});
  check(MPI_Comm_size(MPI_COMM_WORLD, &state_->size), {"MPI_Comm_size"});
  if (provided < MPI_THREAD_SERIALIZED)
    throw CommError(concat("this MPI gives thread level ", provided, ", and Lockstep needs MPI_THREAD_SERIALIZED (",
                           MPI_THREAD_SERIALIZED, "): build or load an MPI with thread support"));
  check_launcher(state_->size);
  state_->tag_limit = tag_limit_of(MPI_COMM_WORLD);
  state_->host = host_name();
  state_->library = library_version();
  state_->thread_level = name_of_level(provided);
  MPI_Request duplicated = MPI_REQUEST_NULL;
  check(MPI_Comm_idup(MPI_COMM_WORLD, &state_->comm, &duplicated), {"MPI_Comm_idup"});
  state_->wait(duplicated, "MPI_Comm_idup", kTimeout);
  check(MPI_Comm_set_errhandler(state_->comm, MPI_ERRORS_RETURN), {"MPI_Comm_set_errhandler"});
  const std::vector<std::string> hosts = all_gather(state_->host);
  state_->host_ranks = static_cast<int>(std::count(hosts.begin(), hosts.end(), state_->host));
}

MpiWorld::~MpiWorld() {
  try {
    if (std::uncaught_exceptions() == 0) leave();
  } catch (...) {
    state_->failed = true;
  }
  // MPI still holds pointers into what was in flight, and other threads may be in a call: the state is leaked on
  // purpose.
  if (state_->failed) state_.release();
}

int MpiWorld::rank() const {
  return state_->rank;
}
int MpiWorld::size() const {
  return state_->size;
}
const std::string& MpiWorld::host() const {
  return state_->host;
}
int MpiWorld::host_ranks() const {
  return state_->host_ranks;
}
const std::string& MpiWorld::library() const {
  return state_->library;
}
const std::string& MpiWorld::thread_level() const {
  return state_->thread_level;
}
bool MpiWorld::failed() const {
  return state_->failed;
}

std::vector<std::string> MpiWorld::all_gather(const std::string& value, std::chrono::milliseconds timeout) {
  auto gather = std::make_unique<Gather>();
  try {
    gather->mine = value;
    gather->my_bytes = static_cast<std::int64_t>(value.size());
    gather->bytes.resize(static_cast<std::size_t>(state_->size));
    MPI_Request request = MPI_REQUEST_NULL;
    {
      std::lock_guard lock(state_->mutex);
      state_->require(MPI_Iallgather(&gather->my_bytes, 1, MPI_INT64_T, gather->bytes.data(), 1, MPI_INT64_T,
                                     state_->comm, &request),
                      {"MPI_Iallgather"});
    }
    state_->wait(request, "MPI_Iallgather", timeout);
    gather->lay_out();
    {
      std::lock_guard lock(state_->mutex);
      state_->require(
          MPI_Iallgatherv(gather->mine.data(), mpi::to_count(gather->my_bytes), MPI_BYTE, gather->all.data(),
                          gather->counts.data(), gather->offsets.data(), MPI_BYTE, state_->comm, &request),
          {"MPI_Iallgatherv", -1, -1, gather->my_bytes});
    }
    state_->wait(request, "MPI_Iallgatherv", timeout);
  } catch (...) {
    gather.release();
    throw;
  }
  std::vector<std::string> values;
  for (std::size_t i = 0; i < gather->bytes.size(); ++i)
    values.push_back(
        gather->all.substr(static_cast<std::size_t>(gather->offsets[i]), static_cast<std::size_t>(gather->counts[i])));
  return values;
}

void MpiWorld::barrier(std::chrono::milliseconds timeout) {
  MPI_Request request = MPI_REQUEST_NULL;
  {
    std::lock_guard lock(state_->mutex);
    state_->require(MPI_Ibarrier(state_->comm, &request), {"MPI_Ibarrier"});
  }
  state_->wait(request, "MPI_Ibarrier", timeout);
}

namespace {

/// MPI_Finalize of MPICH before 4.2 may never end over TCP: ranks that have taken down their connections wait for the
/// launcher, and no longer help those that have not (github.com/pmodels/mpich/pull/6596).
bool may_stay_in_finalize(const std::string& library, bool has_shared_memory_alone) {
  int major = 0, minor = 0;
  const std::size_t at = library.find("MPICH Version:");
  if (at == std::string::npos || has_shared_memory_alone) return false;
  return std::sscanf(library.c_str() + at, "MPICH Version: %d.%d", &major, &minor) == 2 &&
         std::pair(major, minor) < std::pair(4, 2);
}

/// One question of MPICH's first PMI, which hydra and Slurm understand. False: it was not answered like that.
bool ask_launcher(int descriptor, const std::string& question, const std::string& answer) {
  constexpr int kAnswers_ms = 60'000;
  if (write(descriptor, question.data(), question.size()) != static_cast<ssize_t>(question.size())) return false;
  std::string heard;
  for (char byte = 0; byte != '\n'; heard += byte) {
    pollfd launcher{descriptor, POLLIN, 0};
    if (poll(&launcher, 1, kAnswers_ms) != 1 || read(descriptor, &byte, 1) != 1) return false;
  }
  return heard.starts_with(answer);
}

/// Ends this process as MPI_Finalize and a return would: when all ranks are here, by the launcher's own barrier, nobody
/// needs another one's connections any more. Returns when there is no launcher that understands.
void leave_by_launcher(int exit_code) {
  const char* descriptor = std::getenv("PMI_FD");
  if (descriptor == nullptr) return;
  const int launcher = std::atoi(descriptor);
  if (!ask_launcher(launcher, "cmd=barrier_in\n", "cmd=barrier_out")) return;
  ask_launcher(launcher, "cmd=finalize\n", "cmd=finalize_ack");  // who ends without it is killed, and all others too
  std::cout.flush();
  std::fflush(nullptr);
  std::_Exit(exit_code);
}

/// Whether nothing but the memory of this host carries messages.
bool uses_shared_memory_alone(const MpiWorld& world) {
  const char* transports = std::getenv("UCX_TLS");
  return world.host_ranks() == world.size() &&
         (transports == nullptr || std::string_view(transports).find("tcp") == std::string_view::npos);
}

}  // namespace

void MpiWorld::leave(std::optional<int> exit_code) {
  if (left_ || state_->failed) return;
  left_ = true;
  barrier();  // MPI_Finalize waits for the others too, but spinning
  std::lock_guard lock(state_->mutex);
  state_->require(MPI_Comm_free(&state_->comm), {"MPI_Comm_free"});
  if (exit_code && may_stay_in_finalize(library(), uses_shared_memory_alone(*this))) leave_by_launcher(*exit_code);
  state_->require(MPI_Finalize(), {"MPI_Finalize"});
}

void MpiWorld::abort(int code) {
  // A thread inside MPI should get out first, but one that never does must not keep us alive.
  for (int i = 0; i < 200 && !state_->mutex.try_lock(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0) MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

}  // namespace lockstep
