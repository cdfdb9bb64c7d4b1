// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/checkup.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <optional>
#include <set>
#include <sstream>

#include "runtime/base/size.hpp"
#include "runtime/device/card.hpp"
#include "runtime/host/machine.hpp"
#include "runtime/layer/gemm_path.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

enum class Verdict { ok, warn, bad };

struct Finding {
  Verdict verdict = Verdict::ok;
  std::string what, found, advice;
  std::string text() const {
    static constexpr const char* kNames[] = {"ok  ", "warn", "bad "};
    std::ostringstream out;
    out << kNames[static_cast<int>(verdict)] << "  " << std::left << std::setw(12) << what << "  " << found;
    if (!advice.empty()) out << "\n" << std::string(20, ' ') << "-> " << advice;
    return out.str();
  }
};

using Findings = std::vector<Finding>;

// ---- MPI ----

std::string output_of(const std::string& command, int& status) {
  std::string output;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (!pipe) {
    status = 127;
    return output;
  }
  std::array<char, 512> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), pipe)) output += buffer.data();
  const int ended = ::pclose(pipe);
  status = WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
  return output;
}

/// Whether the mpiexec that a user would type starts ranks that see each other.
Finding launcher_finding() {
  std::error_code failure;
  const std::string self = fs::read_symlink("/proc/self/exe", failure).string();
  int status = 0;
  const std::string where = output_of("command -v mpiexec 2>/dev/null", status);
  if (status != 0)
    return {Verdict::warn, "launcher", "no mpiexec in PATH",
            "for more than one process: install MPICH, load your cluster's MPI module, or start with srun --mpi=pmi2"};
  const std::string said = output_of("mpiexec -n 2 '" + self + "' doctor --probe 2>&1 </dev/null", status);
  const std::string path = where.substr(0, where.find('\n'));
  if (status == 0 && said.find("world of 2") != std::string::npos)
    return {Verdict::ok, "launcher", concat(path, " starts 2 ranks that see each other"), ""};
  return {
      Verdict::bad, "launcher",
      concat(path, " does not start ranks that see each other (code ", status, "): ", said.substr(0, said.find('\n'))),
      "use the mpiexec of the MPI that lockstep was built with (above); mpiexec of another MPI starts singletons"};
}

void look_at_mpi(Findings& findings, Process& process) {
  const MpiFacts mpi = process.mpi_facts();
  if (mpi.library.empty()) {
    findings.push_back({Verdict::warn, "MPI", mpi.problem, "one process only: build with LOCKSTEP_MPI=ON for ranks"});
    return;
  }
  const bool threads = mpi.thread_level == "MPI_THREAD_MULTIPLE" || mpi.thread_level == "MPI_THREAD_SERIALIZED";
  findings.push_back({threads ? Verdict::ok : Verdict::bad, "MPI", concat(mpi.library, ", ", mpi.thread_level),
                      threads ? "" : "lockstep needs MPI_THREAD_SERIALIZED: load an MPI with thread support"});
  std::string pmi;
  for (const char* name : {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"})
    if (std::getenv(name)) pmi += concat(pmi.empty() ? "" : ", ", name);
  if (process.size() > 1)
    findings.push_back({Verdict::ok, "launcher", concat(process.size(), " ranks that see each other (", pmi, ")"), ""});
}

// ---- torch, kernels ----

void look_at_torch(Findings& findings) {
  Environment environment = environment_of(Config());
  std::string version, isa, libraries, operators;
  for (const auto& [key, value] : environment.entries) {
    if (key == "torch") version = value;
    if (key == "isa") isa = value;
    if (key == "mkl") libraries += "MKL " + value;
    if (key == "onednn") libraries += ", oneDNN " + value;
    if (key == "aten") libraries += ", ATen's kernels for " + value;
    if (const std::string begin = kOperator; key.starts_with(begin))
      operators += concat(operators.empty() ? "" : ", ", key.substr(begin.size()), " ", value);
  }
  std::string library;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (const auto at = line.find('/'); at != std::string::npos && line.find("libtorch_cpu.so") != std::string::npos)
      library = line.substr(at);
#if defined(_GLIBCXX_USE_CXX11_ABI) && _GLIBCXX_USE_CXX11_ABI
  const char* abi = "C++11 ABI";
#else
  const char* abi = "old C++ ABI";
#endif
  findings.push_back({library.empty() ? Verdict::bad : Verdict::ok, "torch", concat(version, ", ", abi, ", ", library),
                      library.empty() ? "libtorch_cpu.so is not loaded: build again with tools/build.sh" : ""});
  findings.push_back({Verdict::ok, "libraries", libraries, ""});
  findings.push_back({Verdict::ok, "operators", operators, ""});
  const GemmPath gemm = gemm_path();
  const bool lost = gemm.cured && !gemm.effective;
  findings.push_back({lost ? Verdict::warn : Verdict::ok, "GEMM", concat(gemm.reason, "; CPU: ", isa),
                      lost ? "link liblockstep before torch: matrix products run at half speed" : ""});
  for (const c10::Device device : accelerators_here())
    findings.push_back({Verdict::ok, "device", device_text(device), ""});
}

// ---- cores, memory ----

void look_at_cores(Findings& findings, int ranks_here) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  const int bound = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
  const long host = sysconf(_SC_NPROCESSORS_ONLN);
  const std::optional<double> quota = cpu_quota();
  std::string found = concat(bound, " of ", host, " cores by affinity");
  if (quota) found += concat(", ", *quota, " by cgroup");
  Finding finding{Verdict::ok, "cores", found, ""};
  if (quota && *quota + 0.01 < bound) {
    finding.verdict = Verdict::warn;
    finding.advice = concat("the cgroup gives less CPU time than there are cores: use at most ",
                            std::max(1, static_cast<int>(*quota)), " workers here, or raise its cpu limit");
  } else if (bound < host && bound == 1 && ranks_here == 1) {
    finding.verdict = Verdict::warn;
    finding.advice =
        "this process may use one core only: more workers than one will share it; look at taskset, --cpus-per-task, "
        "or the launcher's binding (mpiexec -bind-to none)";
  }
  findings.push_back(finding);
}

std::string limit_text(rlim_t limit) {
  return limit == RLIM_INFINITY ? "unlimited"
                                : size_text(static_cast<std::int64_t>(std::min<rlim_t>(limit, INT64_MAX)));
}

rlim_t soft_limit(int which) {
  rlimit limit{};
  getrlimit(static_cast<__rlimit_resource>(which), &limit);
  return limit.rlim_cur;
}

void look_at_memory(Findings& findings) {
  const MachineMemory memory = machine_memory();
  std::string found =
      concat(size_text(memory.available_bytes), " available of ", size_text(memory.total_bytes),
             memory.group_bytes ? concat(", cgroup limit ", size_text(*memory.group_bytes)) : std::string());
  const bool tight = memory.available_bytes < std::int64_t{1} << 30;
  findings.push_back(
      {tight ? Verdict::warn : Verdict::ok, "memory", found,
       tight ? "an idle rank takes about 160 MB; set workers.memory_limit, so that the message is ours" : ""});
  const rlim_t data = soft_limit(RLIMIT_DATA), space = soft_limit(RLIMIT_AS);
  const bool limited = data != RLIM_INFINITY || space != RLIM_INFINITY;
  findings.push_back(
      {limited ? Verdict::warn : Verdict::ok, "ulimit -d -v",
       concat("data ", limit_text(data), ", address space ", limit_text(space)),
       limited ? "raise them (ulimit -d unlimited; ulimit -v unlimited): LibTorch needs 160 MB of data and 800 MB "
                 "of address space before it does anything"
               : ""});
  const rlim_t files = soft_limit(RLIMIT_NOFILE);
  const bool few = files < 1024;
  findings.push_back({few ? Verdict::warn : Verdict::ok, "ulimit -n", concat(files, " open files"),
                      few ? "raise it (ulimit -n 4096): MPI and the data readers open many" : ""});
}

void look_at_shm(Findings& findings, bool has_mpi) {
  struct statvfs shm {};
  if (::statvfs("/dev/shm", &shm) != 0) {
    findings.push_back({has_mpi ? Verdict::bad : Verdict::warn, "/dev/shm",
                        concat("cannot be looked at: ", std::strerror(errno)),
                        "mount a tmpfs there: ranks of one host talk through it"});
    return;
  }
  const auto size = static_cast<std::int64_t>(shm.f_blocks * shm.f_frsize);
  const auto free = static_cast<std::int64_t>(shm.f_bavail * shm.f_frsize);
  const bool small = free < std::int64_t{128} << 20;
  findings.push_back(
      {small ? Verdict::warn : Verdict::ok, "/dev/shm", concat(size_text(free), " free of ", size_text(size)),
       small ? "docker gives 64 MB: start it with --shm-size=1g; ranks of one host talk through it" : ""});
}

// ---- the run folder ----

std::string type_of_file_system(const std::string& path) {
  struct statfs facts {};
  if (::statfs(path.c_str(), &facts) != 0) return "unknown";
  switch (static_cast<unsigned long>(facts.f_type)) {
    case 0xEF53: return "ext4";
    case 0x58465342: return "xfs";
    case 0x9123683E: return "btrfs";
    case 0x01021994: return "tmpfs";
    case 0x794C7630: return "overlayfs";
    case 0x6969: return "nfs";
    case 0x0BD00BD0: return "lustre";
    case 0x19830326: return "beegfs";
    case 0x47504653: return "gpfs";
    case 0x65735546: return "fuse";
    case 0x01021997: return "9p";
    default: return concat("type 0x", std::hex, facts.f_type);
  }
}

/// The folder itself, or the nearest one above it that exists.
std::string existing_folder(const std::string& path) {
  fs::path folder = fs::absolute(path);
  while (!fs::is_directory(folder) && folder != folder.parent_path()) folder = folder.parent_path();
  return folder.string();
}

Finding file_system_finding(const std::string& folder) {
  const std::string where = concat(folder, " (", type_of_file_system(folder), ")");
  std::string name = folder + "/.lockstep-doctor-XXXXXX";
  const int file = ::mkstemp(name.data());
  if (file < 0)
    return {Verdict::bad, "run folder", concat(where, " cannot be written: ", std::strerror(errno)),
            "name another folder: lockstep doctor FOLDER, run_dir in the config"};
  std::vector<std::string> fails;
  if (::flock(file, LOCK_EX | LOCK_NB) != 0) fails.push_back("flock (two jobs in one folder would not be noticed)");
  if (const int failure = ::posix_fallocate(file, 0, 4096); failure != 0)
    fails.push_back("posix_fallocate (no flight recorders: `lockstep why` knows less)");
  void* map = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (map == MAP_FAILED)
    fails.push_back("shared mmap (no flight recorders: `lockstep why` knows less)");
  else
    ::munmap(map, 4096);
  if (::fsync(file) != 0) fails.push_back("fsync (a checkpoint may be lost in a power failure)");
  const std::string renamed = name + ".renamed";
  if (::rename(name.c_str(), renamed.c_str()) == 0)
    name = renamed;
  else
    fails.push_back("rename (checkpoints are published by it)");
  ::close(file);
  ::unlink(name.c_str());
  if (!fails.empty())
    return {Verdict::warn, "run folder", concat(where, " does not do: ", join(fails, "; ")),
            "a local or NFSv4 folder does it all"};
  return {Verdict::ok, "run folder", concat(where, ": flock, posix_fallocate, mmap, fsync, rename work"), ""};
}

void look_at_run_folder(Findings& findings, const std::string& path) {
  const std::string folder = existing_folder(path);
  findings.push_back(file_system_finding(folder));
  struct statvfs facts {};
  if (::statvfs(folder.c_str(), &facts) != 0) return;
  const auto free = static_cast<std::int64_t>(facts.f_bavail * facts.f_frsize);
  const bool full = free<std::int64_t{1} << 30, inodes = facts.f_files> 0 && facts.f_favail < 1000;
  findings.push_back({full || inodes ? Verdict::warn : Verdict::ok, "disk",
                      concat(size_text(free), " free in ", folder),
                      full     ? "a checkpoint takes 12 bytes a parameter (AdamW), and two exist for a moment"
                      : inodes ? "fewer than 1000 inodes are left"
                               : ""});
}

/// Whether all ranks see the same folder: rank 0 leaves a file there, the others look.
void look_at_sharing(Findings& findings, Process& process, const std::string& path) {
  std::string name;
  if (process.is_root()) {
    name = existing_folder(path) + "/.lockstep-shared-XXXXXX";
    const int file = ::mkstemp(name.data());
    if (file >= 0) ::close(file);
  }
  const std::string there = process.all_gather(name)[0];
  const std::vector<std::string> seen = process.all_gather(fs::exists(there) ? "yes" : process.host());
  if (process.is_root()) ::unlink(name.c_str());
  std::set<std::string> blind(seen.begin(), seen.end());
  blind.erase("yes");
  findings.push_back(
      {blind.empty() ? Verdict::ok : Verdict::bad, "shared",
       blind.empty() ? "all ranks see the same run folder" : concat(join(blind), " does not see rank 0's run folder"),
       blind.empty() ? "" : "put run_dir on a file system that all hosts share"});
}

// ---- together ----

std::string serialized(const Findings& findings) {
  std::string text;
  for (const Finding& finding : findings) text += finding.text() + '\x1e';
  return text;
}

}  // namespace

int check_up(const std::string& run_folder, bool probe) {
  Findings findings;
  const bool alone = !Process::launched();
  // Before MPI_Init: its environment would confuse the ranks of the probe.
  if (alone && !probe && Process::has_mpi()) findings.push_back(launcher_finding());
  Process process(/*always_mpi=*/true);
  if (probe) {
    if (process.is_root()) std::cout << "world of " << process.size() << std::endl;
    return 0;
  }
  look_at_mpi(findings, process);
  look_at_torch(findings);
  look_at_cores(findings, process.size());
  look_at_memory(findings);
  look_at_shm(findings, Process::has_mpi());
  look_at_run_folder(findings, run_folder);
  if (process.size() > 1) look_at_sharing(findings, process, run_folder);
  const auto worst = [](const std::string& text) {
    return text.find("\nbad ") != std::string::npos || text.starts_with("bad ");
  };
  const std::vector<std::string> all = process.all_gather(serialized(findings));
  const std::vector<std::string> hosts = process.all_gather(process.host());
  std::set<std::string> said;
  bool bad = false;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    std::istringstream lines(all[rank]);
    for (std::string line; std::getline(lines, line, '\x1e');) {
      bad = bad || worst(line);
      // What another rank says too is not said again; what it says alone is its host's.
      const bool fresh = said.insert(line).second;
      const bool worth_it = rank == 0 || (hosts[rank] != hosts[0] && !line.starts_with("ok"));
      if (fresh && worth_it && process.is_root())
        std::cout << (rank == 0 ? "" : concat("[", hosts[rank], "] ")) << line << "\n";
    }
  }
  if (process.is_root()) std::cout << (bad ? "something is bad: see above\n" : "nothing is bad\n") << std::flush;
  return bad ? 1 : 0;
}

}  // namespace lockstep
