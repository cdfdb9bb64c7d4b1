// SPDX-License-Identifier: Apache-2.0
#include "tools/stop_signals.hpp"

#include <semaphore.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "runtime/base/clock.hpp"

namespace lockstep {
namespace {

constexpr double kOneRequestUs = 1e6;

// A signal handler can reach nothing but globals.
std::atomic<double> first_us{0};
std::atomic<bool> asked_to_stop{false}, listens{false};
std::atomic<int> first_signal{0}, later_signal{0};
sem_t wake_up;

void on_signal(int number) {
  const int kept = errno;
  double none = 0;
  const double now = now_us();
  if (first_us.compare_exchange_strong(none, now)) {
    first_signal = number;
    asked_to_stop = true;
    sem_post(&wake_up);
  } else if (now - none >= kOneRequestUs) {
    if (!listens) _exit(128 + number);
    later_signal = number;
    sem_post(&wake_up);
  }
  errno = kept;
}

bool is_ignored(int number) {
  struct sigaction action {};
  return sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

}  // namespace

StopSignals::StopSignals(Action first, Action again) {
  static_assert(std::atomic<double>::is_always_lock_free);
  sem_init(&wake_up, 0, 0);
  listens = true;
  listener_ = std::thread([this, first = std::move(first), again = std::move(again)] { listen(first, again); });
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a save must not fail because of the signal that asked for it
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) sigaction(number, &action, nullptr);
  if (!is_ignored(SIGHUP)) sigaction(SIGHUP, &action, nullptr);
}

StopSignals::~StopSignals() {
  listens = false;
  sem_post(&wake_up);
  listener_.join();
}

void StopSignals::listen(const Action& first, const Action& again) {
  for (bool heard_first = false; true;) {
    while (sem_wait(&wake_up) != 0) {
    }
    if (!listens) return;
    if (!std::exchange(heard_first, true)) first(first_signal);
    if (later_signal != 0) again(later_signal);
  }
}

const std::atomic<bool>& StopSignals::asked() {
  return asked_to_stop;
}

int StopSignals::insisted() {
  return later_signal;
}

}  // namespace lockstep
