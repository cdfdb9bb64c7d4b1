// SPDX-License-Identifier: Apache-2.0
//
// A terminal that a test can look at.
#pragma once

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>

#include "tests/test.hpp"

namespace lockstep {

inline std::string read_all(int descriptor) {
  std::array<char, 4096> block{};
  std::string text;
  for (ssize_t got = 0; (got = read(descriptor, block.data(), block.size())) > 0;)
    text.append(block.data(), static_cast<std::size_t>(got));
  return text;
}

/// What is written to `inside` is read from the other end.
class PseudoTerminal {
 public:
  explicit PseudoTerminal(unsigned short columns) : outside_(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK)) {
    REQUIRE(outside_ >= 0);
    REQUIRE(grantpt(outside_) == 0);
    REQUIRE(unlockpt(outside_) == 0);
    inside_ = open(ptsname(outside_), O_RDWR | O_NOCTTY);
    REQUIRE(inside_ >= 0);
    resize(columns);
  }
  ~PseudoTerminal() {
    close(inside_);
    close(outside_);
  }
  PseudoTerminal(const PseudoTerminal&) = delete;
  PseudoTerminal& operator=(const PseudoTerminal&) = delete;

  void resize(unsigned short columns) const {
    const winsize size = {.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    REQUIRE(ioctl(inside_, TIOCSWINSZ, &size) == 0);
  }
  int inside() const { return inside_; }
  std::string shown() const { return read_all(outside_); }

 private:
  int outside_;
  int inside_ = -1;
};

}  // namespace lockstep
