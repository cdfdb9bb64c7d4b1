// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/stop_signals.hpp"

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
std::atomic<bool> may_ask{false}, asked_to_stop{false}, listens{false};
std::atomic<double> asked_us{0};
std::atomic<int> asking_signal{0}, leaving_signal{0};
sem_t wake_up;

void on_signal(int number) {
  const int kept = errno;
  const double now = now_us();
  double never = 0;
  if (may_ask && asked_us.compare_exchange_strong(never, now)) {
    asking_signal = number;
    asked_to_stop = true;
    sem_post(&wake_up);
  } else if (!may_ask || now - never >= kOneRequestUs) {
    if (!listens) _exit(128 + number);
    leaving_signal = number;
    sem_post(&wake_up);
  }
  errno = kept;
}

}  // namespace

StopSignals::StopSignals(Action leave) : leave_(std::move(leave)) {
  static_assert(std::atomic<double>::is_always_lock_free);
  sem_init(&wake_up, 0, 0);
  listens = true;
  listener_ = std::thread([this] { listen(); });
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a save must not fail because of the signal that asked for it
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) sigaction(number, &action, nullptr);
  struct sigaction hangup {};
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
}

StopSignals::~StopSignals() {
  listens = false;
  sem_post(&wake_up);
  listener_.join();
}

void StopSignals::ask(Action first) {
  first_ = std::move(first);
  may_ask = true;
}

void StopSignals::listen() {
  for (bool told = false; true;) {
    while (sem_wait(&wake_up) != 0) {
    }
    if (!listens) return;
    if (asked_to_stop && !std::exchange(told, true)) first_(asking_signal);
    if (leaving_signal != 0) leave_(leaving_signal);
  }
}

const std::atomic<bool>& StopSignals::asked() {
  return asked_to_stop;
}

int StopSignals::insisted() {
  return leaving_signal;
}

}  // namespace lockstep
