// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/console.hpp"

#include <sys/ioctl.h>

#include <algorithm>

#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

constexpr int kUsualColumns = 80;

void print(int output, const std::string& text) {
  // Nobody depends on the picture: a terminal that is gone or does not keep up misses one.
  [[maybe_unused]] const ssize_t written = write(output, text.data(), text.size());
}

}  // namespace

Console::Console(int output) : output_(output) {
  if (isatty(output) == 1) terminal_.descriptor = output;
}

int Console::columns() const {
  if (terminal_.descriptor < 0) return terminal_.columns;
  winsize size = {};
  return ioctl(terminal_.descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kUsualColumns;
}

void Console::move(const std::string& line) {
  std::lock_guard lock(mutex_);
  if (columns() == 0 || (line.empty() && line_.empty())) return;
  line_ = line;
  draw(line_);
}

void Console::settle() {
  std::lock_guard lock(mutex_);
  if (line_.empty()) return;
  draw("");
  print(output_, line_ + "\n");
  line_.clear();
}

void Console::draw(const std::string& line) const {
  // Shorter than the terminal by one, because a full line wraps on some.
  const auto room = static_cast<std::size_t>(std::max(columns() - 1, 0));
  print(output_, concat(kDraw, line.substr(0, room), kErase));
}

Console::Pause::Pause(Console& console) : console_(console), lock_(console.mutex_) {
  if (console_.columns() > 0 && (console_.terminal_.shared || !console_.line_.empty())) console_.draw("");
}

Console::Pause::~Pause() {
  if (!console_.line_.empty()) console_.draw(console_.line_);
}

}  // namespace lockstep
