// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/read_ahead.hpp"

#include <c10/util/ParallelGuard.h>

#include <algorithm>

namespace lockstep {

ReadAhead::ReadAhead(Options options) : options_(std::move(options)) {
  for (int thread = 0; thread < options_.threads; ++thread) threads_.emplace_back([this] { work(); });
}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Tensors ReadAhead::get(const BatchKey& key) {
  std::unique_lock lock(mutex_);
  Lane& lane = lanes_[{key.mode, key.set}];
  if (lane.empty() || lane.front()->key != key) {
    lane.clear();
    lane.push_back(std::make_shared<Item>(Item{key}));
  }
  const std::shared_ptr<Item> item = wanted_ = lane.front();
  lane.pop_front();
  fill(lane, key);
  changed_.notify_all();
  changed_.wait(lock, [&] { return item->done; });
  wanted_ = nullptr;
  if (item->error) std::rethrow_exception(item->error);
  for (const at::Tensor& entry : item->entries) MemoryPool::take_over_here(entry);
  return std::move(item->entries);
}

void ReadAhead::fill(Lane& lane, const BatchKey& after) {
  std::optional<BatchKey> key = lane.empty() ? after : lane.back()->key;
  while (static_cast<int>(lane.size()) < options_.ahead && (key = options_.next(*key)))
    lane.push_back(std::make_shared<Item>(Item{*key}));
}

/// One that nobody has begun: first what somebody waits for.
std::shared_ptr<ReadAhead::Item> ReadAhead::next_item() const {
  if (wanted_ && !wanted_->begun) return wanted_;
  for (auto& [set, lane] : lanes_)
    for (const std::shared_ptr<Item>& item : lane)
      if (!item->begun) return item;
  return nullptr;
}

void ReadAhead::work() {
  const c10::ParallelGuard serial(true);  // LibTorch's threads belong to the worker that computes
  const MemoryPool::Scope memory(pool_);
  std::unique_lock lock(mutex_);
  while (true) {
    std::shared_ptr<Item> item;
    changed_.wait(lock, [&] { return stops_ || (item = next_item()); });
    if (stops_) return;
    item->begun = true;
    lock.unlock();
    Tensors entries;
    std::exception_ptr error;
    try {
      entries = options_.read(item->key);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    item->entries = std::move(entries);
    item->error = error;
    item->done = true;
    changed_.notify_all();
  }
}

}  // namespace lockstep
