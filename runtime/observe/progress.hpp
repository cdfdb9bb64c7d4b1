// SPDX-License-Identifier: Apache-2.0
//
// The line that moves while a job trains, for a person at a terminal; elsewhere nothing is printed (the log has it
// all).
//
//   step 120/200  loss 2.3456  12.3 ms/step  2.60k samples/s  ETA 0:12  1.23 TFLOP/s (45 %)  [############--------]
//
// It stays on one line: what does not fit goes from the right, the operations first, and resizing counts from the next
// drawing on. Our own code, for Debian 12 packages no progress-bar library for C++ (`indicators` comes with Debian 13).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "runtime/base/console.hpp"
#include "runtime/observe/pace.hpp"

namespace lockstep {

struct ProgressState {
  std::int64_t step = 0, total = 0;
  double loss = 0;
  Pace pace = {};
  double eta_s = -1;      ///< negative: not known yet
  std::string what = {};  ///< what is being done, where it is no training: in place of loss and pace
};

/// The line for a terminal of `columns`: shorter than that by one, because a full line wraps on some. ASCII.
std::string progress_line(const ProgressState& state, int columns);

/// "0:07", "12:34", "3:25:45", "2d 03:25"
std::string duration_text(double seconds);

/// The moving line of a console, drawn at most 10 times a second. Thread: one at a time.
class Progress {
 public:
  /// When the console has no terminal, nothing is ever printed.
  Progress(std::int64_t total_steps, std::shared_ptr<Console> console);
  /// As finish(): what is printed next may be the reason why there was no end.
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  bool active() const { return active_; }
  /// `pace`: of the last step.
  void update(std::int64_t step, double loss, const Pace& pace);
  /// Of work that is no training: so many pieces are done, the last one was `what`.
  void update(std::int64_t done, const std::string& what);
  /// Draws the last state and leaves it there. Nothing when there was no update.
  void finish();

 private:
  void show(ProgressState state);
  void draw();

  std::shared_ptr<Console> console_;
  bool active_;
  ProgressState state_;
  bool updated_ = false;
  double drawn_us_ = 0;
  double first_us_ = 0;  ///< when first_step_ was done: the time left follows from the pace since then
  std::int64_t first_step_ = 0;
};

}  // namespace lockstep
