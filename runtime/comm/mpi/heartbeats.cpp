// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi/heartbeats.hpp"

#include <optional>

#include "runtime/base/error.hpp"
#include "runtime/comm/mpi/mpi_call.hpp"
#include "runtime/comm/mpi/slot.hpp"
#include "runtime/observe/waiting.hpp"

namespace lockstep::mpi {
namespace {

constexpr std::chrono::milliseconds kGoodbyePoll{1};
constexpr std::chrono::seconds kGoodbyeTime{60};  // all ranks come to the end of a job within a step of each other

}  // namespace

MpiHeartbeats::MpiHeartbeats(MpiWorld& world, PulseBoard& board, const std::vector<int>& neighbours,
                             std::chrono::milliseconds interval)
    : world_(world.state()), board_(board) {
  for (const int rank : neighbours) {
    auto& neighbour = *neighbours_.emplace_back(std::make_unique<Neighbour>());
    neighbour.rank = rank;
    neighbour.received.resize(static_cast<std::size_t>(board.rows()));
    neighbour.sent.resize(static_cast<std::size_t>(board.rows()));
  }
  thread_ = std::thread([this, interval] { run(interval); });
}

MpiHeartbeats::~MpiHeartbeats() {
  {
    std::lock_guard lock(mutex_);
    abandoned_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (is_over()) return;
  world_.failed = true;
  for (auto& neighbour : neighbours_) neighbour.release();  // NOLINT: MPI may still write to it
}

void MpiHeartbeats::finish() {
  {
    std::lock_guard lock(mutex_);
    finishing_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool MpiHeartbeats::is_over() const {
  for (const auto& neighbour : neighbours_)
    if (!neighbour->said_goodbye || !neighbour->heard_goodbye || neighbour->send != MPI_REQUEST_NULL) return false;
  return true;
}

void MpiHeartbeats::run(std::chrono::milliseconds interval) {
  try {
    std::unique_lock lock(mutex_);
    std::optional<WaitClock> goodbye;
    while (!abandoned_) {
      lock.unlock();
      exchange();
      if (is_over()) return;
      lock.lock();
      if (!finishing_) {
        wake_.wait_for(lock, interval, [this] { return abandoned_ || finishing_; });
      } else {
        if (!goodbye) goodbye.emplace();
        if (goodbye->look() > kGoodbyeTime) return;
        wake_.wait_for(lock, kGoodbyePoll, [this] { return abandoned_.load(); });
      }
    }
  } catch (const Error&) {
    // MPI is broken: the workers' own calls say so, with what they were doing.
    world_.failed = true;
  }
}

void MpiHeartbeats::exchange() {
  std::lock_guard lock(world_.mutex);
  for (auto& neighbour : neighbours_) {
    hear(*neighbour);
    tell(*neighbour);
  }
}

void MpiHeartbeats::hear(Neighbour& from) {
  const auto bytes = static_cast<std::int64_t>(from.received.size() * sizeof(Row));
  while (!from.heard_goodbye) {
    if (from.receive == MPI_REQUEST_NULL) {
      const Call call{"MPI_Irecv (heartbeat)", from.rank, kHeartbeatTag, bytes};
      world_.require(MPI_Irecv(from.received.data(), to_count(bytes), MPI_BYTE, from.rank, kHeartbeatTag, world_.comm,
                               &from.receive),
                     call);
    }
    int done = 0;
    world_.require(MPI_Test(&from.receive, &done, MPI_STATUS_IGNORE), {"MPI_Test (heartbeat)", from.rank});
    if (done == 0) return;
    for (int row = 0; row < board_.rows(); ++row) {
      const Row& news = from.received[static_cast<std::size_t>(row)];
      board_.learn(row, {news.beats, news.waits_for, news.layer, news.activity});
      from.heard_goodbye = from.heard_goodbye || news.goodbye != 0;
    }
  }
}

void MpiHeartbeats::tell(Neighbour& to) {
  if (to.send != MPI_REQUEST_NULL) {
    int done = 0;
    world_.require(MPI_Test(&to.send, &done, MPI_STATUS_IGNORE), {"MPI_Test (heartbeat)", to.rank});
    if (done == 0) return;  // it does not listen: one message waits for it, not a queue
  }
  if (to.said_goodbye) return;
  to.said_goodbye = finishing_;
  for (int row = 0; row < board_.rows(); ++row) {
    const PulseBoard::Reading reading = board_.read(row);
    to.sent[static_cast<std::size_t>(row)] = {reading.beats, reading.waits_for, reading.layer, reading.activity,
                                              to.said_goodbye ? 1U : 0U};
  }
  const auto bytes = static_cast<std::int64_t>(to.sent.size() * sizeof(Row));
  const Call call{"MPI_Isend (heartbeat)", to.rank, kHeartbeatTag, bytes};
  world_.require(MPI_Isend(to.sent.data(), to_count(bytes), MPI_BYTE, to.rank, kHeartbeatTag, world_.comm, &to.send),
                 call);
}

}  // namespace lockstep::mpi
