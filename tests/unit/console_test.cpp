// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/console.hpp"

#include <fcntl.h>

#include <atomic>
#include <thread>
#include <vector>

#include "runtime/base/error.hpp"
#include "runtime/base/log.hpp"
#include "tests/test.hpp"
#include "tests/unit/terminal.hpp"

namespace lockstep {
namespace {

void print(int descriptor, const std::string& text) {
  REQUIRE(write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

/// What a terminal of any width shows in the end, line by line.
std::vector<std::string> rows_of(const std::string& written) {
  std::vector<std::string> rows = {""};
  std::size_t column = 0;
  for (std::size_t i = 0; i < written.size(); ++i) {
    std::string& row = rows.back();
    if (written[i] == '\r') {
      column = 0;
    } else if (written[i] == '\n') {
      rows.emplace_back();
      column = 0;
    } else if (written.compare(i, Console::kErase.size(), Console::kErase) == 0) {
      row.resize(std::min(column, row.size()));
      i += Console::kErase.size() - 1;
    } else {
      row.resize(std::max(row.size(), column + 1), ' ');
      row[column++] = written[i];
    }
  }
  return rows;
}

/// Standard error is another file while it lives.
class StandardError {
 public:
  explicit StandardError(int other) : saved_(dup(STDERR_FILENO)) { dup2(other, STDERR_FILENO); }
  ~StandardError() {
    dup2(saved_, STDERR_FILENO);
    close(saved_);
  }
  StandardError(const StandardError&) = delete;
  StandardError& operator=(const StandardError&) = delete;

 private:
  int saved_;
};

}  // namespace

TEST_CASE("the moving line makes room for what is printed and is drawn again below", "[unit]") {
  const PseudoTerminal terminal(20);
  Console console(terminal.inside());
  console.move("step 1");
  {
    const Console::Pause pause(console);
    print(terminal.inside(), "a line\n");
  }
  CHECK(terminal.shown() == "\rstep 1\x1b[K\r\x1b[Ka line\r\n\rstep 1\x1b[K");
  console.settle();
  {
    const Console::Pause pause(console);
    print(terminal.inside(), "another\n");
  }
  CHECK(terminal.shown() == "\r\x1b[Kstep 1\r\nanother\r\n");
}

TEST_CASE("the moving line is cut to the terminal as it is now", "[unit]") {
  const PseudoTerminal terminal(80);
  Console console(terminal.inside());
  terminal.resize(6);
  console.move("0123456789");
  CHECK(terminal.shown() == "\r01234\x1b[K");
}

TEST_CASE("no control character gets into a file or a pipe that leads to none", "[unit]") {
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  Console console(ends[1]);
  CHECK(console.columns() == 0);
  console.move("step 1");
  {
    const Console::Pause pause(console);
    print(ends[1], "a line\n");
  }
  console.settle();
  close(ends[1]);
  CHECK(read_all(ends[0]) == "a line\n");
  close(ends[0]);
}

TEST_CASE("where others draw too, every line is preceded by a wipe", "[unit]") {
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  Console console(ends[1], {-1, 80, true});
  CHECK(console.columns() == 80);
  {
    const Console::Pause pause(console);
    print(ends[1], "a line\n");
  }
  close(ends[1]);
  CHECK(read_all(ends[0]) == "\r\x1b[Ka line\n");
  close(ends[0]);
}

TEST_CASE("a log and a moving line of several threads never tear each other", "[unit]") {
  const PseudoTerminal terminal(30);
  std::string written;
  {
    const StandardError redirected(terminal.inside());
    const auto console = std::make_shared<Console>();
    Log::Options options;
    options.console = console;
    const Log log(options);
    std::atomic<int> running{3};
    const auto speak = [&](int speaker) {
      for (int i = 0; i < 100; ++i) log.warn(concat("line ", i, " of ", speaker));
      --running;
    };
    std::vector<std::thread> threads;
    for (int speaker = 0; speaker < 2; ++speaker) threads.emplace_back(speak, speaker);
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) console->move(concat("step ", i));
      console->settle();
      --running;
    });
    while (running > 0) {
      written += terminal.shown();
      std::this_thread::yield();
    }
    for (std::thread& thread : threads) thread.join();
    written += terminal.shown();
  }
  std::vector<int> next = {0, 0};
  bool settled = false;
  for (std::string row : rows_of(written)) {
    for (const char* colour : {"\x1b[33m\x1b[1m", "\x1b[m"})  // a warning's
      if (const std::size_t at = row.find(colour); at != std::string::npos) row.erase(at, std::string(colour).size());
    if (constexpr std::string_view mark = "warning: "; row.starts_with(mark)) row.erase(0, mark.size());
    if (row.empty()) continue;
    if (row == "step 199") {
      settled = true;
      continue;
    }
    const int speaker = row.back() - '0';
    REQUIRE((speaker == 0 || speaker == 1));
    CHECK(row == concat("line ", next[static_cast<std::size_t>(speaker)]++, " of ", speaker));
  }
  CHECK(next == std::vector<int>{100, 100});
  CHECK(settled);
}

}  // namespace lockstep
