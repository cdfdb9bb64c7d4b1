// SPDX-License-Identifier: Apache-2.0
//
// Batches that will be wanted next, read on threads of their own. What is read, and in which order it is handed out, is
// as without threads.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/engine/memory.hpp"
#include "runtime/layer/layer.hpp"
#include "runtime/schedule/step_header.hpp"

namespace lockstep {

/// Which batch: its first sample (StepHeader::position), and how many there are.
struct BatchKey {
  Mode mode = Mode::train;
  int set = 0;
  std::int64_t position = 0, rows = 0;
  bool operator==(const BatchKey&) const = default;
};

class ReadAhead {
 public:
  struct Options {
    int threads = 1;
    int ahead = 1;                                                 ///< batches of a set that are read at most
    std::function<Tensors(const BatchKey&)> read;                  ///< called by all threads
    std::function<std::optional<BatchKey>(const BatchKey&)> next;  ///< what is wanted after it; none: nothing
  };
  explicit ReadAhead(Options options);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  /// Waits until it is read. Throws what reading it threw. From here on the caller's pool (memory.hpp) pays for it;
  /// what is read ahead is in nobody's.
  Tensors get(const BatchKey& key);

 private:
  struct Item {
    BatchKey key;
    bool begun = false, done = false;
    Tensors entries = {};
    std::exception_ptr error = nullptr;
  };
  using Lane = std::deque<std::shared_ptr<Item>>;
  void fill(Lane& lane, const BatchKey& after);
  std::shared_ptr<Item> next_item() const;
  void work();

  Options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<Mode, int>, Lane> lanes_;  // of a mode and a set
  std::shared_ptr<Item> wanted_;                // somebody waits for it; no longer in its lane
  bool stops_ = false;
  MemoryPool pool_;  // its blocks are used again and again
  std::vector<std::thread> threads_;
};

}  // namespace lockstep
