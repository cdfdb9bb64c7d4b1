// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/save_task.hpp"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

namespace lockstep {
namespace {

constexpr std::chrono::milliseconds kPoll{20};  // how soon a piece is seen, and the stop flag

}  // namespace

struct SaveTask::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t pieces = 0;  // of files, up to now
  WaitClock::Clock::time_point last_piece = WaitClock::Clock::now();
  std::exception_ptr failure;
  bool done = false;
  bool abandoned = false;  // nobody waits any more: should it move again, it must not touch what others write by then
};

SaveTask::SaveTask(Work work, std::chrono::milliseconds patience)
    : state_(std::make_shared<State>()), patience_(patience) {
  std::thread([state = state_, work = std::move(work)]() mutable {
    std::exception_ptr failure;
    try {
      work([&state] {
        const std::lock_guard lock(state->mutex);
        if (state->abandoned) throw JobStopped();
        ++state->pieces;
        state->last_piece = WaitClock::Clock::now();
      });
    } catch (...) {
      failure = std::current_exception();
    }
    work = nullptr;  // its tensors are free before anybody hears that it is done
    const std::lock_guard lock(state->mutex);
    state->failure = failure;
    state->done = true;
    state->changed.notify_all();
  }).detach();
}

SaveTask::~SaveTask() {
  std::unique_lock lock(state_->mutex);
  while (!state_->done && WaitClock::Clock::now() - state_->last_piece < patience_)
    state_->changed.wait_for(lock, kPoll);
  state_->abandoned = true;
}

bool SaveTask::is_done() const {
  const std::lock_guard lock(state_->mutex);
  return state_->done;
}

void SaveTask::wait(const WaitLimits& limits) const {
  std::unique_lock lock(state_->mutex);
  if (!state_->done) {
    limits.turn_to(Activity::saving);
    if (limits.guard) limits.guard->begin_wait();
    WaitClock clock;
    std::uint64_t seen = state_->pieces;
    std::chrono::milliseconds limit = limits.timeout;
    while (!state_->done) {
      if (limits.stop->raised()) throw JobStopped();
      if (std::exchange(seen, state_->pieces) != state_->pieces) limits.moved();
      limits.alive();
      if (const auto waited = clock.look(); waited >= limit) limit = limits.overdue(waited, "the save");
      state_->changed.wait_for(lock, kPoll);
    }
    limits.turn_to(Activity::none);
  }
  if (state_->failure) std::rethrow_exception(state_->failure);
}

}  // namespace lockstep
