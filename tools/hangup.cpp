// SPDX-License-Identifier: Apache-2.0
#include "tools/hangup.hpp"

#include <signal.h>

namespace lockstep {
namespace {

// What HUP was when we were started, seen before any library's constructor has run. Sanitizers have not begun either.
bool ignores_hangup = false;

__attribute__((no_sanitize("address", "thread"))) void look_at_hangup() {
  static struct sigaction action;
  sigaction(SIGHUP, nullptr, &action);
  ignores_hangup = action.sa_handler == SIG_IGN;
}

__attribute__((section(".preinit_array"), used)) void (*const first_of_all)() = look_at_hangup;

}  // namespace

void take_hangup_back() {
  signal(SIGHUP, ignores_hangup ? SIG_IGN : SIG_DFL);
}

}  // namespace lockstep
