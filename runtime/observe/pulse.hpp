// SPDX-License-Identifier: Apache-2.0
//
// Heartbeats: how a worker that waits finds out whether the one it waits for still makes progress.
//
// Each worker has a Pulse. It beats when an instruction begins, when a layer begins, when it turns to another peer,
// and, while it is at a checkpoint, with every piece of a file that was written, read or synced; never because somebody
// waits; an idle one beats as long as it is alive. A PulseBoard has the pulses of all rows of the job: those of this
// process are read where they are written, the others are copies that messages between ranks keep fresh
// (mpi/heartbeats.hpp). No torch, no MPI.
//
// All fields are lock-free, so that a Pulse may lie in a file that several processes map (flight_recorder.hpp).
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <deque>
#include <vector>

namespace lockstep {

/// Nanoseconds since 1970: the only clock that hosts share, more or less.
inline std::int64_t wall_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

/// What a worker is at besides its program.
enum class Activity : std::int32_t {
  none,
  restoring,  ///< reads its part of a checkpoint
  saving,     ///< writes its part, or waits until it or the whole checkpoint is on the disk
  idle,       ///< decides what the job does next, and has nothing for it to do
};

constexpr const char* to_string(Activity activity) {
  switch (activity) {
    case Activity::none: return "none";
    case Activity::restoring: return "restoring";
    case Activity::saving: return "saving";
    case Activity::idle: return "idle";
  }
  return nullptr;
}

struct Pulse {
  std::atomic<std::uint64_t> beats{0};      ///< 0: has done nothing yet: it builds its part of the model
  std::atomic<std::int32_t> waits_for{-1};  ///< a row, while its instruction waits for that row's message or post
  std::atomic<std::int32_t> layer{-1};      ///< index in the model, while a layer computes
  std::atomic<std::int64_t> seen_ns{0};     ///< wall_ns() of the last sign of life, waiting included
  // Last, where files of earlier builds have zeros.
  std::atomic<Activity> activity{Activity::none};

  // Called by the worker's own thread only.
  void beat() { beats.store(beats.load(std::memory_order_relaxed) + 1, std::memory_order_release); }
  void alive() { seen_ns.store(wall_ns(), std::memory_order_relaxed); }
  void turn_to(int row) {
    waits_for.store(row, std::memory_order_relaxed);
    beat();
  }
  void enter_layer(int index) {
    layer.store(index, std::memory_order_relaxed);
    beat();
    alive();
  }
  void turn_to(Activity what) {
    activity.store(what, std::memory_order_relaxed);
    beat();
    alive();
  }
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::int32_t>::is_always_lock_free &&
              std::atomic<Activity>::is_always_lock_free);

class PulseBoard {
 public:
  struct Reading {
    std::uint64_t beats = 0;
    std::int32_t waits_for = -1;
    std::int32_t layer = -1;
    Activity activity = Activity::none;
  };

  /// `local`: by row; null for the rows of other ranks. They outlive the board.
  explicit PulseBoard(std::vector<Pulse*> local) : pulses_(std::move(local)) {
    for (Pulse*& pulse : pulses_) {
      is_local_.push_back(pulse != nullptr);
      if (!pulse) pulse = &remote_.emplace_back();
    }
  }

  PulseBoard(const PulseBoard&) = delete;  // it points into itself
  PulseBoard& operator=(const PulseBoard&) = delete;

  int rows() const { return static_cast<int>(pulses_.size()); }
  bool is_local(int row) const { return is_local_[static_cast<std::size_t>(row)]; }
  Reading read(int row) const {
    const Pulse& pulse = *pulses_[static_cast<std::size_t>(row)];
    // beats first: what belongs to a beat was written before it.
    const std::uint64_t beats = pulse.beats.load(std::memory_order_acquire);
    return {beats, pulse.waits_for.load(std::memory_order_relaxed), pulse.layer.load(std::memory_order_relaxed),
            pulse.activity.load(std::memory_order_relaxed)};
  }
  /// A message of that row has arrived, so it has begun, whatever the heartbeats say so far. Any thread.
  void heard_from(int row) {
    std::uint64_t none = 0;
    if (!is_local(row)) pulses_[static_cast<std::size_t>(row)]->beats.compare_exchange_strong(none, 1);
  }
  /// What another rank says of a row that is not here; older news than ours is dropped. One thread.
  void learn(int row, const Reading& news) {
    if (is_local(row)) return;
    Pulse& pulse = *pulses_[static_cast<std::size_t>(row)];
    if (news.beats < pulse.beats.load(std::memory_order_relaxed)) return;
    pulse.waits_for.store(news.waits_for, std::memory_order_relaxed);
    pulse.layer.store(news.layer, std::memory_order_relaxed);
    pulse.activity.store(news.activity, std::memory_order_relaxed);
    pulse.beats.store(news.beats, std::memory_order_release);
  }

 private:
  std::vector<Pulse*> pulses_;
  std::vector<bool> is_local_;
  std::deque<Pulse> remote_;
};

/// Keeps a board fresh while it lives.
class Heartbeats {
 public:
  virtual ~Heartbeats() = default;
  /// The job is over on every rank: says goodbye to the others and waits for theirs. Not after a failure.
  virtual void finish() = 0;
};

}  // namespace lockstep
