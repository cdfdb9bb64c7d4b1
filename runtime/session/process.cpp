// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/process.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "runtime/base/check.hpp"
#include "runtime/base/launcher.hpp"
#include "runtime/base/text.hpp"
#include "runtime/host/launcher_terminal.hpp"
#include "runtime/observe/story.hpp"

#ifdef LOCKSTEP_WITH_MPI
#include "runtime/engine/mpi_links.hpp"
#endif

namespace lockstep {
namespace {

constexpr std::chrono::seconds kAbortTime{10};

std::string host_name() {
  char name[256] = "";
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

}  // namespace

Log Process::log(const std::string& file) const {
  Log::Options options;
  options.file = file;
  options.console_info = is_root();
  options.console = console_;
  return Log(options);
}

#ifdef LOCKSTEP_WITH_MPI

struct Process::Mpi {
  MpiWorld world;
  std::unique_ptr<RemoteLinks> links;
};

bool Process::has_mpi() {
  return true;
}
bool Process::launched() {
  return lockstep::launched();
}
MpiFacts Process::mpi_facts() const {
  if (!mpi_) return {"", "", "not started"};
  return {mpi_->world.library(), mpi_->world.thread_level(), ""};
}

Process::Process(bool always_mpi) {
  host_ = host_name();
  if (!lockstep::launched() && !always_mpi) return;
  try {
    mpi_ = std::make_unique<Mpi>();
  } catch (const UserError& error) {
    // Tasks that do not know of each other cannot elect a speaker, but srun numbers them.
    if (const char* task = std::getenv("SLURM_PROCID"); task && std::atoi(task) > 0)
      throw AlreadyReported{static_cast<int>(error.exit_code())};
    throw;
  }
  if (lockstep::launched()) console_ = std::make_shared<Console>(STDERR_FILENO, terminal_of_launcher());
  ranks_.here = RankId(mpi_->world.rank());
  ranks_.count = mpi_->world.size();
  if (size() > 1) leave_by_signals();
}

namespace {

/// Whether ranks hand memory of devices to MPI. Throws ConfigError when this one does not take it.
bool takes_device_buffers(const Config& config) {
  if (!config.comm.device_buffers || config.workers.on_cpus_alone()) return false;
  for (const std::string& device : config.workers.devices) {
    const std::string type = device.substr(0, device.find(':'));
    if (type == "cpu") continue;
    if (const std::string why = why_no_device_memory(type); !why.empty())
      throw config.root.section("comm").error("device_buffers", concat("got true, but of this MPI ", why,
                                                                       "; set it to false: tensors then pass through "
                                                                       "memory of the host"));
  }
  return true;
}

}  // namespace

std::unique_ptr<RemoteLinks> Process::make_links(int workers, bool device_buffers) {
  if (size() == 1) return nullptr;
  MpiEndpointOptions options;
  options.workers = workers;
  return std::make_unique<MpiLinks>(mpi_->world, options, device_buffers);
}

void Process::connect(Trainer& trainer) {
  if (size() == 1) return;
  const std::vector<RankId>& ranks = trainer.layout().rank_of_row;
  const auto workers_here = std::count(ranks.begin(), ranks.end(), ranks_.here);
  mpi_->links.reset();  // one at a time
  mpi_->links = make_links(static_cast<int>(workers_here), takes_device_buffers(trainer.config()));
  ranks_.remote = mpi_->links.get();
  if (trainer.config().workers.bind == Bind::cores) {
    // Ranks of one host that were not bound apart by the launcher share its CPUs: those before us take theirs first.
    const std::vector<std::string> places = all_gather(concat(mpi_->world.host(), " ", join(allowed_cpus())));
    ranks_.workers_before = static_cast<int>(std::count_if(ranks.begin(), ranks.end(), [&](RankId other) {
      return other < ranks_.here &&
             places[static_cast<std::size_t>(other.value())] == places[static_cast<std::size_t>(rank())];
    }));
  }
  trainer.connect(ranks_);
}

std::vector<std::string> Process::all_gather(const std::string& value, std::chrono::milliseconds timeout) {
  return size() > 1 ? mpi_->world.all_gather(value, timeout) : std::vector<std::string>{value};
}

void Process::finish(int exit_code) {
  signals_.reset();
  if (!mpi_) return;
  mpi_->links.reset();
  try {
    leave(exit_code);
  } catch (const Error&) {  // of a rank that does not come: it says so itself
  }
}

void Process::leave(int exit_code) {
  // A launcher kills the other ranks of one that ends without MPI_Finalize, and a destructor that runs while an
  // exception is on its way cannot know that all ranks are on the same way.
  if (mpi_) mpi_->world.leave(exit_code);
}

void Process::end_all(int code) {
  if (size() > 1) mpi_->world.abort(code);
  std::_Exit(code);
}

#else

struct Process::Mpi {};

bool Process::has_mpi() {
  return false;
}
bool Process::launched() {
  return false;
}
MpiFacts Process::mpi_facts() const {
  return {"", "", "built without it (LOCKSTEP_MPI=OFF)"};
}

Process::Process(bool) {
  host_ = host_name();
  if (const int ranks = launched_processes(); ranks > 1)
    throw UserError(
        concat("started by an MPI launcher with ", ranks,
               " ranks, but this lockstep was built with LOCKSTEP_MPI=OFF; build with MPI, or run without mpirun"));
}
void Process::connect(Trainer&) {}
std::unique_ptr<RemoteLinks> Process::make_links(int, bool) {
  return nullptr;
}
void Process::finish(int) {
  signals_.reset();
}

void Process::leave(int) {}
std::vector<std::string> Process::all_gather(const std::string& value, std::chrono::milliseconds) {
  return {value};
}
void Process::end_all(int code) {
  std::_Exit(code);
}

#endif

Process::~Process() = default;

// A rank that a signal ends, or that just leaves, may be the launcher's code 0: MPICH's mpiexec loses the codes of
// ranks that end after it has passed a signal on, but not that of an abort.
void Process::leave_by_signals() {
  signals_ = std::make_unique<StopSignals>([this](int number) { end_all(128 + number); });
}

void Process::end_run() {
  run_folder_.clear();
  signals_.reset();
  if (size() > 1) leave_by_signals();
}

void Process::stop_when_asked(std::function<void(int)> announce) {
  if (!signals_) leave_by_signals();
  signals_->ask(std::move(announce));
}

namespace {

// The launcher reads our standard error through a pipe, and throws away what it has not read when the job is aborted.
void let_launcher_read() {
  for (int i = 0, unread = 0; i < 1000 && ioctl(STDERR_FILENO, FIONREAD, &unread) == 0 && unread > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace

void Process::fail(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  const int code = static_cast<int>(known ? known->exit_code() : ExitCode::fault);
  const std::string reason = reason_of(error);
  if (!run_folder_.empty() && !first_to_fail(run_folder_, {rank(), code, host_, reason})) {
    // The elected rank's abort is on its way. Should that rank die before it, its code is still the job's.
    std::this_thread::sleep_for(kAbortTime);
    const int elected = read_first_failure(run_folder_).code;
    end_all(elected != 0 ? elected : code);
  }
  // One write, so that lines of other processes do not come in between.
  const std::string speaker = size() > 1 ? concat("rank ", rank(), " on ", host_, ", ") : "";
  {
    const Console::Pause pause(*console_);
    std::cerr << concat("lockstep: ", speaker, reason, "\n") << std::flush;
  }
  if (size() > 1) let_launcher_read();
  end_all(code);
}

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

void Process::together(const std::function<void()>& work, std::chrono::milliseconds timeout) {
  std::string failure;
  try {
    work();
  } catch (const UserError& error) {
    failure = error.what();
  }
  const std::vector<std::string> failures = all_gather(failure, timeout);
  for (int rank = 0; rank < size(); ++rank) {
    if (failures[rank].empty()) continue;
    if (is_root())
      std::cerr << "lockstep: " << (rank > 0 ? concat("rank ", rank, ": ") : "") << failures[rank] << std::endl;
    leave(static_cast<int>(ExitCode::user_input));
    throw AlreadyReported{static_cast<int>(ExitCode::user_input)};
  }
}

void Process::compare(const Trainer& trainer) {
  const std::vector<std::string> all = all_gather(trainer.agreement());
  together([&] {
    for (std::size_t rank = 1; rank < all.size(); ++rank)
      if (all[rank] != all[0])
        throw UserError(concat(
            "rank ", rank, " differs from rank 0 in ", first_different_line(all[0], all[rank]),
            "; give every rank the same file and overrides, the same build of lockstep, the same kind of processor, "
            "and the same variables of torch and MKL (ATEN_CPU_CAPABILITY, MKL_CBWR, ...)"));
  });
}

int run_ranks(const std::function<int(Process&)>& work) {
  std::unique_ptr<Process> process;
  try {
    process = std::make_unique<Process>();
    const int code = work(*process);
    process->finish(code);
    return code;
  } catch (const AlreadyReported& reported) {
    return reported.exit_code;
  } catch (const std::exception& error) {
    if (process) process->fail(error);
    std::cerr << concat("lockstep: ", reason_of(error), "\n") << std::flush;
    const auto* known = dynamic_cast<const Error*>(&error);
    return static_cast<int>(known ? known->exit_code() : ExitCode::fault);
  }
}

}  // namespace lockstep
