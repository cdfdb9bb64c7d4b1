// SPDX-License-Identifier: Apache-2.0
//
// Where output goes. A rename over a device would replace it, so the machine's own are named only behind a REQUIRE.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>

#include "runtime/base/error.hpp"
#include "runtime/base/output_file.hpp"
#include "runtime/observe/metrics.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"
#include "tests/unit/terminal.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

class Folder : public test::TemporaryFolder {
 public:
  void write(const std::string& name, const std::string& text) const { std::ofstream(file(name)) << text; }
  std::string read(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(file(name)).rdbuf();
    return text.str();
  }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path()), fs::directory_iterator()));
  }
};

template <typename Function>
std::string error_of(Function function, ExitCode code) {
  try {
    function();
  } catch (const Error& error) {
    CHECK(error.exit_code() == code);
    return error.what();
  }
  return "none";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct stat status_of(const std::string& path) {
  struct stat status {};
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  return status;
}

}  // namespace

TEST_CASE("a file is replaced as a whole and keeps its mode", "[unit]") {
  const Folder folder;
  write_whole_file(folder.file("new"), "one");
  CHECK(folder.read("new") == "one");
  ::chmod(folder.file("new").c_str(), 0640);
  const std::ifstream reader(folder.file("new"));
  write_whole_file(folder.file("new"), "two");
  CHECK(folder.read("new") == "two");
  CHECK((status_of(folder.file("new")).st_mode & 07777) == 0640);
  std::ostringstream kept;  // whoever had it open has the old one, whole
  kept << reader.rdbuf();
  CHECK(kept.str() == "one");
  CHECK(folder.entries() == 1);
}

TEST_CASE("a symbolic link stays, and what it leads to is written", "[unit]") {
  const Folder folder;
  fs::create_directory(folder.file("there"));
  folder.write("there/old", "old");
  fs::create_symlink("there/old", folder.file("near"));
  fs::create_symlink(folder.file("near"), folder.file("far"));
  fs::create_symlink("there/none", folder.file("nowhere"));
  check_writable("-o", folder.file("far"));
  check_writable("-o", folder.file("nowhere"));
  write_whole_file(folder.file("far"), "new");
  write_whole_file(folder.file("nowhere"), "made");
  for (const char* link : {"near", "far", "nowhere"}) CHECK(fs::is_symlink(folder.file(link)));
  CHECK(folder.read("there/old") == "new");
  CHECK(folder.read("there/none") == "made");
}

TEST_CASE("a device is written in place, and a full one is an error", "[unit]") {
  const Folder folder;
  const PseudoTerminal terminal(80);
  const std::string device = ttyname(terminal.inside());
  fs::create_symlink(device, folder.file("link"));
  for (const std::string& name : {device, folder.file("link")}) {
    check_writable("-o", name);
    write_whole_file(name, "text");
    MetricsWriter(name).summary();
    MetricsWriter(name, /*resume_after=*/1).summary();
  }
  CHECK(contains(terminal.shown(), "text"));
  CHECK(fs::is_symlink(folder.file("link")));
  REQUIRE(S_ISCHR(status_of(device).st_mode));
  fs::create_symlink("/dev/full", folder.file("full"));
  CHECK(error_of([&] { write_whole_file(folder.file("full"), "text"); }, ExitCode::fault) ==
        concat("cannot write ", folder.file("full"), ": ", std::strerror(ENOSPC)));
  CHECK(S_ISCHR(status_of("/dev/full").st_mode));
  CHECK(folder.entries() == 2);
}

TEST_CASE("a FIFO is written in place", "[unit]") {
  const Folder folder;
  REQUIRE(::mkfifo(folder.file("fifo").c_str(), 0600) == 0);
  check_writable("-o", folder.file("fifo"));
  auto read = std::async(std::launch::async, [&] { return folder.read("fifo"); });
  write_whole_file(folder.file("fifo"), std::string(100'000, 'x'));
  CHECK(read.get() == std::string(100'000, 'x'));
  CHECK(S_ISFIFO(status_of(folder.file("fifo")).st_mode));
}

TEST_CASE("an open descriptor is written where it stands", "[unit]") {
  const Folder folder;
  const int file = ::open(folder.file("open").c_str(), O_WRONLY | O_CREAT, 0600);
  REQUIRE(file >= 0);
  REQUIRE(::write(file, "before ", 7) == 7);
  const std::string path = concat("/dev/fd/", file);
  fs::create_symlink(path, folder.file("link"));
  check_writable("-o", path);
  write_whole_file(path, "one ");
  write_whole_file(folder.file("link"), "two ");
  REQUIRE(::write(file, "after", 5) == 5);
  ::close(file);
  CHECK(folder.read("open") == "before one two after");
  CHECK(contains(error_of([&] { check_writable("-o", path); }, ExitCode::user_input),
                 concat("-o: cannot write ", path, ": ", std::strerror(EBADF))));
}

TEST_CASE("what cannot be written is said with its reason, before and after", "[unit]") {
  const Folder folder;
  fs::create_symlink("a", folder.file("b"));
  fs::create_symlink("b", folder.file("a"));
  fs::create_symlink("none/file", folder.file("lost"));
  const auto before = [&](const std::string& path) {
    return error_of([&] { check_writable("--html", path); }, ExitCode::user_input);
  };
  CHECK(before(folder.file("")) == concat("--html: cannot write ", folder.file(""), ": it is a folder"));
  CHECK(contains(before(folder.file("none/x")), std::strerror(ENOENT)));
  CHECK(contains(before(folder.file("a")), std::strerror(ELOOP)));
  CHECK(before(folder.file("lost")) == concat("--html: cannot write ", folder.file("lost"), " (a link to ",
                                              folder.file("none/file"), "): ", std::strerror(ENOENT)));
  const auto after = [&](const std::string& path) {
    return error_of([&] { write_whole_file(path, "text"); }, ExitCode::fault);
  };
  CHECK(contains(after(folder.file("none/x")), std::strerror(ENOENT)));
  fs::create_directory(folder.file("folder"));
  CHECK(contains(after(folder.file("folder")), std::strerror(EISDIR)));
  CHECK(folder.entries() == 4);  // no .part
}

TEST_CASE("metrics that go on through a link keep the link, and lose the later lines", "[unit]") {
  const Folder folder;
  folder.write("metrics", "{\"step\": 1}\n{\"step\": 2}\n");
  fs::create_symlink("metrics", folder.file("link"));
  { const MetricsWriter writer(folder.file("link"), /*resume_after=*/1); }
  CHECK(fs::is_symlink(folder.file("link")));
  CHECK(folder.read("metrics") == "{\"step\": 1}\n");
}

}  // namespace lockstep
