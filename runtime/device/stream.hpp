// SPDX-License-Identifier: Apache-2.0
//
// The order of work on a device. A device computes later than it is told to, a stream at a time, in the order of the
// telling; between streams only events make an order. The host computes at once: of it there are no streams, every
// event is over, and nothing here costs anything.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>

#include <memory>
#include <optional>

namespace lockstep {

/// A point in a stream's work; copies are the same point. One made by nobody is over.
class StreamEvent {
 public:
  /// A look, which never waits. Throws c10::Error when the work before it has failed.
  bool over() const { return !event_ || event_->query(); }

 private:
  friend class DeviceStream;
  std::shared_ptr<c10::Event> event_;
};

/// A handle: copies are the same stream. Any thread.
class DeviceStream {
 public:
  /// A stream of its own on the device. Streams are few, and memory is kept by each: make them once.
  explicit DeviceStream(c10::Device device);
  /// That to which this thread's work for the device goes.
  static DeviceStream current(c10::Device device);

  c10::Device device() const { return device_; }
  bool is_of_host() const { return !stream_; }
  /// Behind all that has been told so far.
  StreamEvent record() const;
  /// The same, and when that is. Of a device only.
  std::shared_ptr<c10::Event> record_time() const;
  /// All that is told from here on comes behind the event. No thread waits.
  void wait(const StreamEvent& event) const;
  /// This thread waits for all that has been told so far.
  void synchronize() const;

  /// While alive, this thread's work for the device goes to the stream, backward included: LibTorch would run that on
  /// one thread per device for all workers, which knows no thread-local scopes (pytorch issue 18333).
  class Scope {
   public:
    explicit Scope(const DeviceStream& stream);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    c10::OptionalStreamGuard guard_;
    bool was_multithreaded_ = false;
  };

 private:
  DeviceStream(c10::Device device, c10::Stream stream) : device_(device), stream_(stream) {}

  c10::Device device_;
  std::optional<c10::Stream> stream_;  // none: of the host
};

}  // namespace lockstep
