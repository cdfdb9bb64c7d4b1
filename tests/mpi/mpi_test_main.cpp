// SPDX-License-Identifier: Apache-2.0
//
// main of the tests that run under mpirun. Every rank runs all chosen tests; the job fails when any rank fails, with
// one exit code on all ranks. Rank 0 prints as usual; the others print only what they have to say when they fail.
#define CATCH_CONFIG_RUNNER
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <vector>

#include "runtime/base/error.hpp"
#include "tests/mpi/mpi_test.hpp"
#include "tests/test.hpp"

namespace lockstep::test {
namespace {

MpiWorld* the_world = nullptr;

/// Keeps stdout in a file until it is known whether anybody wants to read it.
class HeldOutput {
 public:
  HeldOutput() : stdout_(dup(STDOUT_FILENO)), file_(std::tmpfile()) {
    std::fflush(stdout);
    if (file_ != nullptr) dup2(fileno(file_), STDOUT_FILENO);
  }
  void show(const std::string& title) {
    restore();
    std::cout << title << '\n';
    if (file_ == nullptr) return;
    std::rewind(file_);
    char buffer[4096];
    for (std::size_t got; (got = std::fread(buffer, 1, sizeof(buffer), file_)) > 0;)
      std::cout.write(buffer, static_cast<std::streamsize>(got));
    std::cout.flush();
  }
  ~HeldOutput() {
    restore();
    if (file_ != nullptr) std::fclose(file_);
    close(stdout_);
  }

 private:
  int stdout_;
  FILE* file_;

  void restore() {
    std::cout.flush();
    std::fflush(stdout);
    dup2(stdout_, STDOUT_FILENO);
  }
};

int run_session(int argc, char** argv) {
  std::vector<const char*> arguments(argv, argv + argc);
  for (const char* fixed : {"--order", "decl"}) arguments.push_back(fixed);  // the same on every rank
  return Catch::Session().run(static_cast<int>(arguments.size()), arguments.data());
}

int run_here(MpiWorld& mpi_world, int argc, char** argv) {
  if (mpi_world.rank() == 0) return run_session(argc, argv);
  HeldOutput held;
  const int failed = run_session(argc, argv);
  if (failed != 0) held.show(concat("===== rank ", mpi_world.rank(), " ====="));
  return failed;
}

int run_everywhere(int argc, char** argv) {
  MpiWorld mpi_world;
  the_world = &mpi_world;
  const int failed_here = run_here(mpi_world, argc, argv);
  int failed = 0;
  const auto counts = mpi_world.all_gather(std::to_string(failed_here), std::chrono::milliseconds(60'000));
  for (const std::string& count : counts) failed = std::max(failed, std::stoi(count));
  if (mpi_world.rank() == 0) std::cout << "failed assertions per rank: " << join(counts) << std::endl;
  const int code = failed == 0 ? 0 : 1;
  // Tests tagged [error] leave MPI unfit for Finalize, and the launcher kills the others as soon as one rank exits
  // without it: the exit code would be 9.
  if (mpi_world.failed()) {
    mpi_world.barrier();  // rank 0 has printed
    mpi_world.abort(code);
  }
  return code;
}

}  // namespace

MpiWorld& world() {
  return *the_world;
}

}  // namespace lockstep::test

int main(int argc, char** argv) {
  try {
    return lockstep::test::run_everywhere(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
