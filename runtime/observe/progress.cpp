// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/progress.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "runtime/base/clock.hpp"
#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

constexpr double kLeastPauseUs = 100'000;

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::string bar(double share, std::size_t width) {
  const auto done = static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(width));
  return "[" + std::string(done, '#') + std::string(width - done, '-') + "]";
}

}  // namespace

std::string duration_text(double seconds) {
  const auto all = static_cast<std::int64_t>(std::min(std::ceil(seconds), 1e12));
  const long long days = all / 86400, hours = all / 3600 % 24, minutes = all / 60 % 60, rest = all % 60;
  if (days > 0) return format("%lldd %02lld:%02lld", days, hours, minutes);
  return hours > 0 ? format("%lld:%02lld:%02lld", hours, minutes, rest) : format("%lld:%02lld", minutes, rest);
}

std::string progress_line(const ProgressState& state, int columns) {
  constexpr std::size_t smallest_bar = 5, largest_bar = 30, around_bar = 4;  // two spaces and the brackets
  const auto room = static_cast<std::size_t>(std::max(columns - 1, 0));
  const std::string eta = concat("ETA ", state.eta_s < 0 ? "?" : duration_text(state.eta_s));
  std::vector<std::string> fields = {concat(state.step, "/", state.total), state.what, eta};
  const double step_ms = state.pace.us * 1e-3;
  if (state.what.empty())
    fields = {concat("step ", state.step, "/", state.total), format("loss %.4g", state.loss),
              format("%.*f ms/step", step_ms < 100 ? 1 : 0, step_ms), rate_text(state.pace), eta};
  std::string line;
  for (const std::string& field : fields) {
    const std::string next = line.empty() ? field : concat(line, "  ", field);
    if (next.size() > room) return line;
    line = next;
  }
  const std::string work = work_text(state.pace);
  if (!work.empty() && line.size() + 2 + work.size() + smallest_bar + around_bar <= room) line += "  " + work;
  const std::size_t left = room - line.size();
  if (left < smallest_bar + around_bar) return line;
  const double share = static_cast<double>(state.step) / static_cast<double>(std::max<std::int64_t>(state.total, 1));
  return line + "  " + bar(share, std::min(left - around_bar, largest_bar));
}

Progress::Progress(std::int64_t total_steps, std::shared_ptr<Console> console)
    : console_(std::move(console)), active_(console_->columns() > 0) {
  state_.total = total_steps;
}

void Progress::update(std::int64_t step, double loss, const Pace& pace) {
  show({step, state_.total, loss, pace});
}

void Progress::update(std::int64_t done, const std::string& what) {
  ProgressState state{done, state_.total};
  state.what = what;
  show(std::move(state));
}

void Progress::show(ProgressState state) {
  if (!active_) return;
  const std::int64_t step = state.step;
  const double now = now_us();
  if (!updated_) {
    first_us_ = now;
    first_step_ = step;
  }
  updated_ = true;
  const auto steps = static_cast<double>(step - first_step_);
  if (steps > 0) state.eta_s = (now - first_us_) / 1e6 / steps * static_cast<double>(state.total - step);
  state_ = std::move(state);
  if (drawn_us_ == 0 || now - drawn_us_ >= kLeastPauseUs) draw();
}

void Progress::draw() {
  drawn_us_ = now_us();
  console_->move(progress_line(state_, console_->columns()));
}

void Progress::finish() {
  if (!active_ || !updated_) return;
  draw();
  console_->settle();
  updated_ = false;
}

}  // namespace lockstep
