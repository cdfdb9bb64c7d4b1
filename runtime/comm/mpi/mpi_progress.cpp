// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi/mpi_progress.hpp"

namespace lockstep::mpi {
namespace {

constexpr std::chrono::microseconds kShortNap{50};  // of the helper, while messages move
constexpr std::chrono::microseconds kLongNap{500};  // while nothing moves
// While it is not needed its naps grow to this, then it parks until it is woken. Not sooner: to wake it costs 20 us,
// and between short waits it would be woken by every post.
constexpr std::chrono::microseconds kParkingNap{4'000};
// A poll in which nothing happens takes 0.1 us. MPI copies a large message piece by piece, one piece in each poll, and
// does not say so: who sleeps in between gets 1.6 GB/s instead of 6.
constexpr std::chrono::microseconds kMovingPoll{2};
constexpr std::chrono::milliseconds kDrainTime{20};  // for cancelled receives, when an endpoint goes

}  // namespace

void Transfer::fail(std::exception_ptr error) {
  if (done()) return;  // the first failure is the one to tell
  error_ = std::move(error);
  finish();
}

void Transfer::rethrow_failure() const {
  if (error_) std::rethrow_exception(error_);
}

// --- RequestList
// ---------------------------------------------------------------------------------------------------------

RequestList::~RequestList() {
  if (requests_.empty()) return;
  world_.failed = true;
  new std::vector<Entry>(std::move(entries_));
}

void RequestList::add(MPI_Request request, Entry entry) {
  requests_.push_back(request);
  entries_.push_back(std::move(entry));
}

void RequestList::send(const void* from, std::int64_t bytes, int tag, Part part, std::shared_ptr<Transfer> owner,
                       bool synchronous) {
  const Call call{synchronous ? "MPI_Issend" : "MPI_Isend", owner->peer(), tag, bytes};
  MPI_Request request = MPI_REQUEST_NULL;
  const auto start = synchronous ? MPI_Issend : MPI_Isend;
  world_.require(start(from, to_count(bytes), MPI_BYTE, call.peer, tag, world_.comm, &request), call);
  add(request, {std::move(owner), call, part, false});
}

void RequestList::receive(void* to, std::int64_t bytes, int tag, Part part, std::shared_ptr<Transfer> owner) {
  const Call call{"MPI_Irecv", owner->peer(), tag, bytes};
  MPI_Request request = MPI_REQUEST_NULL;
  world_.require(MPI_Irecv(to, to_count(bytes), MPI_BYTE, call.peer, tag, world_.comm, &request), call);
  add(request, {std::move(owner), call, part, true});
}

bool RequestList::test() {
  if (requests_.empty()) return false;
  indices_.resize(requests_.size());
  statuses_.resize(requests_.size());
  int count = 0;
  const int code = MPI_Testsome(to_count(static_cast<std::int64_t>(requests_.size())), requests_.data(), &count,
                                indices_.data(), statuses_.data());
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) world_.require(code, {"MPI_Testsome"});
  if (count <= 0) return false;  // MPI_UNDEFINED is negative
  for (const Finished& finished : take_out(count, code == MPI_ERR_IN_STATUS)) tell_owner(finished);
  return true;
}

std::vector<RequestList::Finished> RequestList::take_out(int count, bool statuses_have_errors) {
  // Out of the list first: owners start new requests.
  std::vector<Finished> finished;
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(indices_[static_cast<std::size_t>(i)]);
    const MPI_Status& status = statuses_[static_cast<std::size_t>(i)];
    finished.push_back({std::move(entries_[at]), status, statuses_have_errors ? status.MPI_ERROR : MPI_SUCCESS});
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!entries_[i].owner) continue;
    if (kept != i) {
      entries_[kept] = std::move(entries_[i]);
      requests_[kept] = requests_[i];
    }
    ++kept;
  }
  entries_.resize(kept);
  requests_.resize(kept);
  return finished;
}

void RequestList::tell_owner(const Finished& finished) {
  const Entry& entry = finished.entry;
  try {
    world_.require(finished.code, entry.call);
    int cancelled = 0, bytes = 0;
    if (entry.receives) {
      world_.require(MPI_Test_cancelled(&finished.status, &cancelled), {"MPI_Test_cancelled"});
      if (cancelled != 0) return;
      world_.require(MPI_Get_count(&finished.status, MPI_BYTE, &bytes), {"MPI_Get_count"});
    }
    entry.owner->completed(entry.part, bytes);
  } catch (...) {
    world_.failed = true;
    entry.owner->fail(std::current_exception());
  }
}

void RequestList::cancel(const Transfer& owner) {
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (entries_[i].owner.get() == &owner && entries_[i].receives)
      world_.require(MPI_Cancel(&requests_[i]), {"MPI_Cancel", entries_[i].call.peer, entries_[i].call.tag});
}

// --- Progress
// ------------------------------------------------------------------------------------------------------------

Progress::Progress(MpiWorld& world, std::optional<std::chrono::microseconds> helper, Cores cores)
    : world_(world.state()),
      cores_(cores),
      requests_(world.state()),
      patience_(helper.value_or(std::chrono::microseconds(0))) {
  if (helper) helper_ = std::thread([this] { help(); });
}

Progress::~Progress() {
  {
    std::lock_guard lock(helper_mutex_);
    leaving_ = true;
  }
  helper_wake_.notify_all();
  if (helper_.joinable()) helper_.join();
  drain();
}

void Progress::drain() {
  // Receives whose channel is gone have been cancelled; MPI says so in the next tests.
  try {
    Backoff backoff;
    while (true) {
      {
        std::lock_guard lock(world_.mutex);
        poll();
      }
      if (pending_ == 0 || backoff.waited() > kDrainTime) return;
      backoff.sleep();
    }
  } catch (...) {
    world_.failed = true;
  }
}

bool Progress::start_what_is_ready() {
  return std::erase_if(awaiting_, [this](const auto& awaiting) {
           const auto& [transfer, ready] = awaiting;
           try {
             if (!ready.over()) return false;
             transfer->start(requests_);
           } catch (...) {  // some of it may be in flight: nobody must wait for the rest
             transfer->fail(std::current_exception());
           }
           return true;
         }) > 0;
}

bool Progress::poll() {
  const bool began = start_what_is_ready();
  const auto start = Clock::now();
  const bool completed = requests_.test() || began;
  pending_ = requests_.size() + awaiting_.size();
  const auto end = Clock::now();
  last_poll_ = end.time_since_epoch();
  return completed || end - start >= kMovingPoll;
}

bool Progress::poll_if_free() {
  std::unique_lock lock(world_.mutex, std::try_to_lock);  // whoever holds it polls for us
  return lock.owns_lock() && poll();
}

void Progress::start(const std::shared_ptr<Transfer>& transfer, const StreamEvent& ready) {
  awaiting_.emplace_back(transfer, ready);
  started();
  if (transfer->done()) transfer->rethrow_failure();
}

void Progress::started() {
  poll();
  wake_helper_if_needed();
}

void Progress::wait(const Transfer& transfer, const char* operation, const WaitLimits& limits) {
  if (transfer.done()) return transfer.rethrow_failure();
  struct Waiter {
    Progress& progress;
    explicit Waiter(Progress& owner) : progress(owner) { ++progress.waiters_; }
    ~Waiter() {
      --progress.waiters_;
      progress.wake_helper_if_needed();
    }
  } waiter(*this);
  Backoff backoff(cores_);
  WaitClock clock;
  std::chrono::milliseconds limit = limits.timeout;
  while (!transfer.done()) {
    if (is_broken_) throw CommError(broken_);
    const bool moving = poll_if_free();
    if (transfer.done()) break;
    if (limits.stop->raised()) throw JobStopped();
    if (const auto waited = clock.look(); waited >= limit)
      limit = limits.overdue(waited, concat(operation, " rank ", transfer.peer(), " on edge ", transfer.edge()));
    if (moving || backoff.spin()) continue;
    limits.alive();
    backoff.sleep();
  }
  transfer.rethrow_failure();
}

void Progress::look() {
  if (is_broken_) throw CommError(broken_);
  if (pending_ > 0) poll_if_free();
}

void Progress::wake_helper_if_needed() {
  if (!helper_parked_ || !helper_is_needed()) return;
  std::lock_guard lock(helper_mutex_);
  helper_wake_.notify_one();
}

bool Progress::help_once() {
  bool moved = false;
  try {
    while (helper_is_needed() && poll_if_free()) moved = true;
  } catch (const std::exception& error) {
    broken_ = error.what();
    is_broken_ = true;
  }
  return moved;
}

void Progress::help() {
  std::chrono::microseconds nap = kShortNap;
  std::unique_lock lock(helper_mutex_);
  while (!leaving_ && !is_broken_) {
    if (helper_wake_.wait_for(lock, nap, [this] { return leaving_; })) return;
    if (helper_is_needed()) {
      const auto quiet = Clock::now().time_since_epoch() - last_poll_.load();
      if (quiet < patience_) {
        nap = std::clamp(2 * nap, patience_, 8 * patience_);
        continue;
      }
      lock.unlock();
      nap = help_once() ? kShortNap : std::min(2 * nap, kLongNap);
      lock.lock();
    } else if (nap < kParkingNap) {
      nap *= 2;
    } else {
      park(lock);
      nap = kShortNap;
    }
  }
}

void Progress::park(std::unique_lock<std::mutex>& lock) {
  helper_parked_ = true;
  helper_wake_.wait(lock, [this] { return leaving_ || helper_is_needed(); });
  helper_parked_ = false;
}

}  // namespace lockstep::mpi
