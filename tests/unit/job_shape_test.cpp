// SPDX-License-Identifier: Apache-2.0
//
// What is left of a job, and on which hosts: the arithmetic of `lockstep launch --shrink`, and how hosts are named.
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>

#include "runtime/base/error.hpp"
#include "runtime/host/host_list.hpp"
#include "runtime/host/host_probe.hpp"
#include "runtime/host/job_shape.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;
namespace fs = std::filesystem;

namespace {

JobShape shape_of(int ranks, int replicas, int workers, HostList hosts = {}) {
  JobShape shape;
  shape.hosts = hosts.empty() ? HostList{{"", ranks}} : std::move(hosts);
  shape.ranks = ranks;
  shape.replicas = replicas;
  shape.pipeline_workers = workers;
  return shape;
}

Lost ranks(std::vector<int> numbers) {
  Lost lost;
  for (const int number : numbers) lost.ranks.push_back({number, "SIGKILL", true});
  return lost;
}

template <typename Action>
std::string refusal(const Action& action) {
  try {
    action();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

/// "RANKS x REPLICAS", or "nothing".
std::string left(const JobShape& before, const Lost& lost) {
  const auto after = without(before, lost);
  return after ? concat(after->ranks, " x ", after->replicas) : "nothing";
}

}  // namespace

TEST_CASE("a job goes on with the replicas that fit on the ranks that are left", "[unit]") {
  CHECK(left(shape_of(4, 4, 1), ranks({2})) == "3 x 3");
  CHECK(left(shape_of(2, 4, 1), ranks({1})) == "1 x 2");
  CHECK(left(shape_of(4, 2, 2), ranks({0})) == "2 x 1");  // one stays without work
  CHECK(left(shape_of(6, 3, 2), ranks({0, 5})) == "4 x 2");
  CHECK(left(shape_of(3, 2, 3), ranks({0})) == "2 x 1");
  CHECK(left(shape_of(5, 2, 4), ranks({4})) == "4 x 2");
  CHECK(left(shape_of(1, 4, 1), ranks({0})) == "nothing");
}

TEST_CASE("where not one pipeline fits, one goes on with more workers on each rank", "[unit]") {
  const JobShape before = shape_of(4, 1, 4);
  const JobShape after = without(before, ranks({3})).value();
  CHECK(left(before, ranks({3})) == "3 x 1");
  CHECK(after.most_on_a_rank() == 2);
  CHECK(text_of(after, before) == "3 ranks, 1 replica of 4 workers, up to 2 workers on a rank (1 before)");
  CHECK(left(after, ranks({0})) == "2 x 1");
}

TEST_CASE("whatever is lost, the job that is left can be placed and never grows", "[unit]") {
  for (int replicas = 1; replicas <= 6; ++replicas)
    for (int workers = 1; workers <= 5; ++workers)
      for (int count = 1; count <= replicas * workers; ++count) {
        JobShape before = shape_of(count, replicas, workers);
        while (const auto after = without(before, ranks({before.ranks / 2}))) {
          CAPTURE(count, replicas, workers, before.ranks, after->ranks);
          CHECK(after->ranks >= 1);
          CHECK(after->ranks <= after->replicas * workers);
          CHECK(after->ranks <= slots_of(after->hosts));
          CHECK(after->ranks <= before.ranks);
          CHECK(after->replicas >= 1);
          CHECK(after->replicas <= before.replicas);
          CHECK(slots_of(after->hosts) == slots_of(before.hosts) - 1);
          if (after->most_on_a_rank() > before.most_on_a_rank()) CHECK(after->replicas == 1);
          before = *after;
        }
      }
}

TEST_CASE("a host that does not answer takes its ranks with it, and room elsewhere takes their place", "[unit]") {
  const JobShape full = shape_of(4, 2, 2, {{"a", 2}, {"b", 2}});
  const Lost lost{{"b"}, {}};
  CHECK(left(full, lost) == "2 x 1");
  CHECK(without(full, lost)->hosts == HostList{{"a", 2}});
  CHECK(left(full, {{"a", "b"}, {}}) == "nothing");
  const JobShape roomy = shape_of(4, 2, 2, {{"a", 2}, {"b", 2}, {"c", 4}});
  CHECK(left(roomy, lost) == "4 x 2");
  // Rank 2 is the first one on b.
  const JobShape after = without(full, ranks({2})).value();
  CHECK(after.hosts == HostList{{"a", 2}, {"b", 1}});
  CHECK(left(full, {{"a"}, {{2, "SIGKILL", true}}}) == "1 x 1");
  // A rank without work takes the place of the next one that is lost.
  CHECK(left(shape_of(4, 2, 2), ranks({0})) == "2 x 1");
  CHECK(left(without(shape_of(4, 2, 2), ranks({0})).value(), ranks({1})) == "2 x 1");
}

TEST_CASE("what was lost is said", "[unit]") {
  CHECK(text_of(Lost{{"b"}, {{2, "SIGKILL", true}}}) == "host b (no answer), rank 2 (SIGKILL)");
  CHECK(text_of(Lost{{}, {{0, "", false}}}) == "rank 0 (probably first; killed)");
  const JobShape before = shape_of(4, 4, 1);
  CHECK(text_of(without(before, ranks({2})).value(), before) == "3 ranks, 3 replicas of 1 worker");
}

TEST_CASE("hosts are read from a flag", "[unit]") {
  CHECK(read_hosts("a:4,10.0.0.2:1,c") == HostList{{"a", 4}, {"10.0.0.2", 1}, {"c", 1}});
  CHECK(text_of(read_hosts("a:4,b")) == "a:4,b:1");
  for (const auto& [text, expected] : {std::pair("a:0", "got 'a:0', expected HOST or HOST:RANKS"),
                                       {"a:x", "got 'a:x'"},
                                       {"a:4x", "got 'a:4x'"},
                                       {"fe80::1", "got 'fe80::1'"},
                                       {"-a", "got '-a'"},
                                       {"a,,b", "got ''"},
                                       {"a,", "got 'a,', expected hosts, such as node1:4,node2:4"},
                                       {"a:1,b,a", "host a is there twice; name it once, with all its ranks: a:N"}})
    CHECK_THAT(refusal([&, hosts = text] { read_hosts(hosts); }), Catch::Matchers::Contains(expected));
}

TEST_CASE("hosts are read from a file, as MPICH and as Open MPI write it", "[unit]") {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/hosts";
  const auto write = [&](const std::string& text) { std::ofstream(path) << text; };
  write("# mine\nnode1:4\n\n  node2 slots=2  # the old one\nnode3\n");
  CHECK(read_hostfile(path) == HostList{{"node1", 4}, {"node2", 2}, {"node3", 1}});
  for (const auto& [text, expected] :
       {std::pair("node1:4\nnode2 cpus=4\n", ":2: got 'node2 cpus=4', expected HOST, HOST:RANKS or"),
        {"node1:4 slots=4\n", ":1: got"},
        {"node1 slots=4 max_slots=8\n", ":1: got"},
        {"node1 slots=no\n", ":1: got 'node1:no'"},
        {"# nobody\n", " names no host"},
        {"", " names no host"}}) {
    write(text);
    CHECK_THAT(refusal([&] { read_hostfile(path); }), Catch::Matchers::Contains("--hostfile: " + path + expected));
  }
  CHECK(refusal([&] { read_hostfile(path + "2"); }) == concat("--hostfile: cannot read ", path, "2"));
}

TEST_CASE("launchers that are told hosts are recognized", "[unit]") {
  CHECK(host_flag_of({"mpiexec", "-launcher-exec", "ssh", "-iface", "eth1"}).empty());
  CHECK(host_flag_of({"mpiexec", "-f", "hosts"}) == "-f");
  CHECK(host_flag_of({"mpirun", "--hostfile=hosts"}) == "--hostfile=hosts");
  CHECK(host_flag_of({"mpirun", "-hosts", "a,b"}) == "-hosts");
}

TEST_CASE("hosts answer, refuse, or are given up after the limit with all that was started for them", "[unit]") {
  const TemporaryFolder folder;
  const std::string launcher = folder.path() + "/launcher", pid = folder.path() + "/pid";
  std::ofstream(launcher) << "#!/bin/sh\ncase $2 in well) exit 0;; bad) exit 255;; esac\nsleep 1000 &\necho $! > "
                          << pid << "\nwait\n";
  fs::permissions(launcher, fs::perms::owner_all);
  const auto problems =
      probe_hosts({launcher}, {"well", "bad", "silent"}, std::chrono::seconds(2), [] { return false; });
  CHECK(problems[0].empty());
  CHECK(problems[1] == concat("'", launcher, " -host bad -n 1 true' ended with code 255"));
  CHECK(problems[2] == concat("'", launcher, " -host silent -n 1 true' was not done after 2 s"));
  int left_over = 0;
  std::ifstream(pid) >> left_over;
  REQUIRE(left_over > 0);
  const int process = static_cast<int>(syscall(SYS_pidfd_open, left_over, 0));
  pollfd ended{.fd = process, .events = POLLIN, .revents = 0};
  CHECK((process < 0 ? errno == ESRCH : poll(&ended, 1, 10'000) == 1));  // told to end it is; it may still be at it
  close(process);
}

TEST_CASE("nobody is asked any more when the user wants to leave", "[unit]") {
  const auto before = std::chrono::steady_clock::now();
  probe_hosts({"sleep", "1000"}, {"a"}, std::chrono::seconds(100), [] { return true; });
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(50));
}
