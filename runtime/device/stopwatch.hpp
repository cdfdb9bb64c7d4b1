// SPDX-License-Identifier: Apache-2.0
//
// Times of a stream's work. The host computes when it is told to, and a look at its clock is the time; of a device the
// host learns when something was done only after it was:
//
//   const auto begin = watch.mark();  work;  const auto end = watch.mark();
//   ... the stream has come past `end` ...
//   watch.set(first, last);  watch.us(end) - watch.us(begin);
#pragma once

#include <c10/core/Event.h>

#include <memory>

#include "runtime/device/stream.hpp"

namespace lockstep {

class Stopwatch {
 public:
  /// Of the stream's work. One thread.
  explicit Stopwatch(DeviceStream stream) : stream_(std::move(stream)) {}
  const DeviceStream& stream() const { return stream_; }

  /// Behind all that has been told so far.
  struct Mark {
    double told_us = 0;                           ///< when it was told
    std::shared_ptr<c10::Event> event = nullptr;  ///< null: of the host, which has done it by then
  };
  Mark mark() const;

  /// All from `first` to `last` is over: what lies between has its time from here on.
  void set(const Mark& first, const Mark& last);
  /// The same, and this thread waits for it.
  void wait(const Mark& first, const Mark& last);
  /// On now_us()'s clock.
  double us(const Mark& mark) const;

 private:
  DeviceStream stream_;
  Mark anchor_;  // a time of both clocks
  double anchor_us_ = 0;
};

}  // namespace lockstep
