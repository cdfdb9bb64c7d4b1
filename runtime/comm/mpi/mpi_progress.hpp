// SPDX-License-Identifier: Apache-2.0
//
// Internal to runtime/comm/mpi: all point-to-point requests of this rank in one list, and who moves them on.
//
//   RequestList  starts, tests and cancels requests; tells the Transfer that owns one when it is complete
//   Progress     polls the list from every thread that waits, and from a low-duty helper when none does
//
// A Transfer is one half of a channel. The list shares ownership of the transfers with requests in flight, so buffers
// outlive the channel when MPI may still write to them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "runtime/comm/backoff.hpp"
#include "runtime/comm/channel.hpp"
#include "runtime/comm/mpi/mpi_call.hpp"

namespace lockstep::mpi {

enum class Part { header, description, block };

class RequestList;

class Transfer {
 public:
  Transfer(int peer, int edge) : peer_(peer), edge_(edge) {}
  virtual ~Transfer() = default;
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  /// Under the world's mutex: sends what it has. Only of transfers that Progress::start() is given.
  virtual void start(RequestList& requests) { static_cast<void>(requests); }
  /// One request is complete; `bytes` were received (0 for sends). Under the world's mutex. What it throws fails the
  /// transfer.
  virtual void completed(Part part, std::int64_t bytes) = 0;

  /// From any thread: nothing of this transfer is in flight any more, or it has failed.
  bool done() const { return done_.load(std::memory_order_acquire); }
  void fail(std::exception_ptr error);
  void rethrow_failure() const;  ///< only once done()

  int peer() const { return peer_; }
  int edge() const { return edge_; }

 protected:
  void begin() { done_.store(false, std::memory_order_relaxed); }
  void finish() { done_.store(true, std::memory_order_release); }

 private:
  const int peer_, edge_;
  std::exception_ptr error_;
  std::atomic<bool> done_{true};
};

/// Every call is made under the world's mutex.
class RequestList {
 public:
  explicit RequestList(MpiWorld::State& world) : world_(world) {}
  ~RequestList();  // what is still in flight is leaked, with its buffers
  RequestList(const RequestList&) = delete;
  RequestList& operator=(const RequestList&) = delete;

  void send(const void* from, std::int64_t bytes, int tag, Part part, std::shared_ptr<Transfer> owner,
            bool synchronous);
  void receive(void* to, std::int64_t bytes, int tag, Part part, std::shared_ptr<Transfer> owner);
  /// Completes what can be completed; says whether anything was. An error of one request fails its transfer only.
  bool test();
  void cancel(const Transfer& owner);  ///< its receives that no message has reached
  std::size_t size() const { return requests_.size(); }

 private:
  struct Entry {
    std::shared_ptr<Transfer> owner;
    Call call;
    Part part = Part::header;
    bool receives = false;
  };
  struct Finished {
    Entry entry;
    MPI_Status status;
    int code;
  };
  MpiWorld::State& world_;
  std::vector<MPI_Request> requests_;  // one per entry; apart, because MPI_Testsome takes an array
  std::vector<Entry> entries_;
  std::vector<int> indices_;          // of test(), kept to save allocations
  std::vector<MPI_Status> statuses_;  // of test()

  void add(MPI_Request request, Entry entry);
  std::vector<Finished> take_out(int count, bool statuses_have_errors);
  void tell_owner(const Finished& finished);
};

class Progress {
 public:
  /// `helper`: the helper's patience, how long it leaves polling to the workers, who do so between layers; nothing: no
  /// helper.
  Progress(MpiWorld& world, std::optional<std::chrono::microseconds> helper, Cores cores);
  ~Progress();

  std::mutex& mutex() { return world_.mutex; }
  RequestList& requests() { return requests_; }  ///< under the mutex

  /// Under the mutex: starts a transfer, whose begin() has been called, when what it sends is there: at once, or, where
  /// a device has still to come so far, with the first poll that finds it. An error fails the transfer, and what fails
  /// at once is thrown.
  void start(const std::shared_ptr<Transfer>& transfer, const StreamEvent& ready);
  /// After requests were started, under the mutex: completes what is complete at once, and wakes the helper if any is
  /// not.
  void started();
  /// Returns when the transfer is done, polling for all. Throws what failed it, JobStopped, WaitTimeout.
  void wait(const Transfer& transfer, const char* operation, const WaitLimits& limits);
  /// One look for all, if anything is in flight and nobody else is looking. Throws what broke MPI.
  void look();

 private:
  using Clock = Backoff::Clock;

  MpiWorld::State& world_;
  const Cores cores_;
  RequestList requests_;
  std::vector<std::pair<std::shared_ptr<Transfer>, StreamEvent>> awaiting_;  // what a device has still to make
  std::atomic<std::size_t> pending_{0};  // requests_ and awaiting_, readable without the mutex
  std::atomic<int> waiters_{0};          // threads in wait(): they poll, the helper need not
  std::atomic<Clock::duration> last_poll_{Clock::duration::zero()};  // since the clock's epoch
  std::string broken_;  // MPI failed while the helper polled: each thread throws its own
  std::atomic<bool> is_broken_{false};

  const std::chrono::microseconds patience_;
  std::mutex helper_mutex_;  // taken after the world's mutex, never before it
  std::condition_variable helper_wake_;
  std::atomic<bool> helper_parked_{false};
  bool leaving_ = false;
  std::thread helper_;

  bool poll();  // under the mutex; whether anything moved
  bool start_what_is_ready();
  bool poll_if_free();
  bool helper_is_needed() const { return pending_ > 0 && waiters_ == 0; }
  void wake_helper_if_needed();
  void help();
  bool help_once();
  void park(std::unique_lock<std::mutex>& lock);
  void drain();
};

}  // namespace lockstep::mpi
