// SPDX-License-Identifier: Apache-2.0
//
// What `lockstep launch` hears and sees.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <memory>
#include <sstream>

#include "runtime/base/error.hpp"
#include "runtime/host/launch_listener.hpp"
#include "runtime/host/launcher_terminal.hpp"
#include "runtime/host/rank_watch.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"
#include "tests/unit/terminal.hpp"

using namespace lockstep;
using namespace lockstep::test;
namespace fs = std::filesystem;

namespace {

/// A listener at a pipe.
class Heard {
 public:
  explicit Heard(Console& console) {
    std::array<int, 2> ends{};
    REQUIRE(pipe(ends.data()) == 0);
    input_ = ends[1];
    listener = std::make_unique<LaunchListener>(ends[0], output_, console);
  }
  ~Heard() { end(); }

  void hear(const std::string& text) {
    REQUIRE(write(input_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    listener->listen();
  }
  void end() {
    if (input_ < 0) return;
    close(input_);
    input_ = -1;
    listener->listen();
  }
  std::string passed_on() const { return output_.str(); }

  std::unique_ptr<LaunchListener> listener;

 private:
  int input_ = -1;
  std::ostringstream output_;
};

const char* const kHydra = R"(
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 17 RUNNING AT node7
=   EXIT CODE: 9
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
===================================================================================
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)
This typically refers to a problem with your application.
Please see the FAQ page for debugging suggestions
)";

const char* const kBacktrace = R"(==== backtrace (tid:  20725) ====
 0  /lib/x86_64-linux-gnu/libucs.so.0(ucs_handle_error+0x2dc) [0x7fc3f65cce9c]
 1  /lib/x86_64-linux-gnu/ucx/libuct_cma.so.0(+0x284f) [0x7fc40e61884f]
10  /opt/lockstep/lib/liblockstep.so.0(_ZN8lockstep3mpi11RequestList4testEv+0xc2) [0x7fc40e5680c2]
=================================
)";

const std::string kBacktraceOfAnother =
    std::string(kBacktrace).replace(std::string_view(kBacktrace).find("20725"), 5, "20726");

/// A process with a flight recorder, that does nothing until it is killed.
class Rank {
 public:
  Rank(const std::string& recorder, const FlightOwner& owner) : pid_(fork()) {
    if (pid_ != 0) return;
    const FlightRecorder mine(recorder, owner);
    while (true) pause();
  }
  ~Rank() { end(); }
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  pid_t pid() const { return pid_; }
  void end() {
    if (ended_) return;
    ended_ = true;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

 private:
  pid_t pid_;
  bool ended_ = false;
};

}  // namespace

TEST_CASE("launch takes hydra's block out of what it hears, and reads it", "[unit]") {
  Console console(-1);
  Heard heard(console);
  heard.hear(concat("before\n", kHydra, "after\n"));
  CHECK(heard.passed_on() == "before\nafter\n");
  CHECK(heard.listener->reported().pid == 17);
  CHECK(heard.listener->reported().host == "node7");
  CHECK(heard.listener->reported().how == "9");
}

TEST_CASE("a line of equal signs that is nobody's block is passed on", "[unit]") {
  Console console(-1);
  Heard heard(console);
  heard.hear("\n=======\na table\n=======\n=======\n");
  heard.hear("the rest");
  heard.end();
  CHECK(heard.passed_on() == "\n=======\na table\n=======\n=======\nthe rest\n");
}

TEST_CASE("of ranks that MPI ended because another was gone one line each is left", "[unit]") {
  Console console(-1);
  Heard heard(console);
  const std::string gone =
      " process_vm_readv(pid=985 {0x7fc3e4080d40,524288}-->{0x7fb1,524288}) returned -1: No such process\n";
  heard.hear(concat("[node7:986  :0:20725]      cma_ep.c:81  ", gone, "[node7:20681:0:20726]      cma_ep.c:81  ", gone,
                    kBacktrace, "in between\n", kBacktraceOfAnother, "after\n", kHydra));
  CHECK(heard.passed_on() ==
        "lockstep: launch: MPI ended process 986, because process 985, from which it was reading, was gone\n"
        "lockstep: launch: MPI ended process 20681, because process 985, from which it was reading, was gone\n"
        "in between\nafter\n");
  CHECK(heard.listener->found_gone() == LaunchListener::FoundGone{{{"node7", 986}, 985}, {{"node7", 20681}, 985}});
  CHECK(heard.listener->reported().pid == 17);
}

TEST_CASE("who was found gone ended before who found it, whatever the kernel came to first", "[unit]") {
  Console console(-1);
  Heard output(console), errors(console);
  errors.hear(
      "[node7:13   :0:99] cma_ep.c:81 process_vm_readv(pid=12 {0x1,5}-->{0x2,5}) returned -1: No such process\n");
  output.hear(
      "[node8:11   :0:99] cma_ep.c:81 process_vm_readv(pid=14 {0x1,5}-->{0x2,5}) returned -1: No such process\n");
  const auto first_of = [&](std::vector<int> pids) {
    std::vector<EndedRank> seen;
    for (const int pid : pids) seen.push_back({pid, "node7", concat("how of ", pid)});
    const RankEnds ends = ends_of(seen, *output.listener, *errors.listener);
    return concat(ends.seen.front().pid, " ", ends.seen.front().how);
  };
  CHECK(first_of({13, 11, 12}) == "12 how of 12");
  CHECK(first_of({13, 11}) == "12 ");  // it ended before it was looked for
  CHECK(first_of({11, 13, 12}) == "11 how of 11");
  CHECK(ends_of({}, *output.listener, *errors.listener).seen.empty());
}

TEST_CASE("what mpiexec reports counts with a code that it does not cause", "[unit]") {
  Console console(-1);
  for (const auto& [code, how] : {std::pair("9", ""),
                                  {"15", ""},
                                  {"11", "mpiexec reports code 11, as after SIGSEGV"},
                                  {"3", "mpiexec reports code 3"}}) {
    Heard output(console), errors(console);
    std::string block = kHydra;
    output.hear(block.replace(block.find(": 9") + 2, 1, code));
    CHECK(ends_of({}, *output.listener, *errors.listener).reported.how == how);
  }
}

TEST_CASE("a line may be as long as it likes", "[unit]") {
  Console console(-1);
  Heard heard(console);
  const std::string line = concat("[", std::string(1'000'000, 'x'), "\n");
  for (std::size_t at = 0; at < line.size(); at += 4096) heard.hear(line.substr(at, 4096));
  heard.end();
  CHECK(heard.passed_on() == line);
}

TEST_CASE("any other backtrace is passed on", "[unit]") {
  Console console(-1);
  Heard heard(console);
  const std::string crash = concat("[node7:20686:0:20725] Caught signal 11 (Segmentation fault)\n", kBacktrace);
  heard.hear(crash);
  heard.end();
  CHECK(heard.passed_on() == crash);
}

TEST_CASE("a rank's moving line goes to launch's console, wherever the reads cut it", "[unit]") {
  const std::string text =
      "first\n\rstep 1\x1b[K\r\x1b[Kwarning of rank 0\n\rstep 1\x1b[Kwarning of rank 1\nhalf a \rstep "
      "2\x1b[Kline\nnot\rours\n";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    const PseudoTerminal terminal(40);
    Console console(terminal.inside());
    Heard heard(console);
    if (cut > 0) heard.hear(text.substr(0, cut));
    if (cut < text.size()) heard.hear(text.substr(cut));
    CHECK(heard.passed_on() == "first\nwarning of rank 0\nwarning of rank 1\nhalf a line\nnot\rours\n");
    CHECK(terminal.shown().ends_with("\rstep 2\x1b[K"));
  }
}

TEST_CASE("launchers that label lines or write them to files do not lead to a terminal", "[unit]") {
  CHECK(passes_on({"mpiexec"}));
  CHECK(passes_on({"mpiexec", "-bind-to", "none", "-launcher", "ssh", "--env", "X", "1"}));
  CHECK_FALSE(passes_on({"mpiexec", "-prepend-rank"}));
  CHECK_FALSE(passes_on({"mpiexec", "-l"}));
  CHECK_FALSE(passes_on({"mpiexec", "--errfile-pattern=err.%r"}));
  CHECK_FALSE(passes_on({"srun", "--mpi=pmi2", "--label"}));
  CHECK_FALSE(passes_on({"srun", "-o", "out.%t"}));
  CHECK_FALSE(passes_on({"mpirun", "--output-filename", "out"}));
}

TEST_CASE("launch sees in which order ranks end, however late it looks", "[unit]") {
  const TemporaryFolder folder;
  const std::string& run = folder.path();
  fresh_recorder_folder(run);
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  // Of a start before: this process is no rank of the next.
  const FlightRecorder before(recorder_file(run, 0), FlightOwner{0, 0, 1, host, ""});
  RankWatch watch(run, fs::read_symlink("/proc/self/exe"));
  watch.look();
  CHECK(watch.is_looking());

  fresh_recorder_folder(run);
  std::vector<std::unique_ptr<Rank>> ranks;
  for (int rank = 0; rank < 4; ++rank)
    ranks.push_back(std::make_unique<Rank>(recorder_file(run, rank),
                                           FlightOwner{rank, rank, 4, rank == 3 ? "elsewhere" : host, ""}));
  while (watch.is_looking()) {
    watch.look();
    usleep(20'000);
  }
  std::vector<int> order, seen;
  for (const std::size_t rank : {2U, 3U, 0U, 1U}) {
    if (rank != 3) order.push_back(ranks[rank]->pid());
    ranks[rank]->end();
  }
  watch.hear();
  for (const EndedRank& rank : watch.ended()) seen.push_back(rank.pid);
  CHECK(seen == order);
}
