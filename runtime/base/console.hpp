// SPDX-License-Identifier: Apache-2.0
//
// Standard error as a person at a terminal sees it: lines, and below them one that moves. Whoever prints a line holds a
// Pause meanwhile, for which the moving line is wiped; afterwards it is drawn again. Where no terminal is, nothing is
// ever drawn or wiped: no control character gets into a file.
//
// Under an MPI launcher standard error is a pipe and the terminal is behind it. The moving line goes through the pipe
// as it would to the terminal. Ranks do not know what others have drawn: each wipes before it prints. `lockstep launch`
// takes the moving line out of what it reads (the ends are below) and draws it on a console of its own.
//
// Thread-safe: one per process, shared by the log and everybody else who prints.
#pragma once

#include <unistd.h>

#include <mutex>
#include <string>
#include <string_view>

namespace lockstep {

class Console {
 public:
  /// A moving line is written between these, without an end of line; an empty one wipes.
  static constexpr std::string_view kDraw = "\r", kErase = "\x1b[K";  // ESC [ K: erase the rest of the line

  /// Where the moving line is seen.
  struct Terminal {
    int descriptor = -1;  ///< of the terminal, which is asked for its width each time; not owned
    int columns = 0;      ///< instead: the width of one that cannot be asked
    bool shared = false;  ///< other processes print there too
  };

  /// Draws on `output` itself, when it is a terminal.
  explicit Console(int output = STDERR_FILENO);
  /// `output` leads to this terminal.
  Console(int output, const Terminal& terminal) : output_(output), terminal_(terminal) {}
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  /// 0: nobody would see a line that moves.
  int columns() const;
  /// Draws the moving line in place of the one before, cut to the terminal's width. Empty: there is none any more.
  void move(const std::string& line);
  /// The moving line stays where it is, as a line like others. Nothing when there is none.
  void settle();

  /// While it lives its owner prints, and nobody else.
  class Pause {
   public:
    explicit Pause(Console& console);
    ~Pause();
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    Console& console_;
    std::lock_guard<std::mutex> lock_;
  };

 private:
  void draw(const std::string& line) const;

  int output_;
  Terminal terminal_;
  std::mutex mutex_;
  std::string line_;  ///< what moves; empty: nothing
};

}  // namespace lockstep
