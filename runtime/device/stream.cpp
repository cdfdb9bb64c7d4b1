// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/stream.hpp"

#include <c10/core/AutogradState.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace lockstep {

DeviceStream::DeviceStream(c10::Device device) : device_(device) {
  if (!device.is_cpu()) stream_ = c10::impl::VirtualGuardImpl(device.type()).getNewStream(device);
}

DeviceStream DeviceStream::current(c10::Device device) {
  if (device.is_cpu()) return DeviceStream(device);
  return {device, c10::impl::VirtualGuardImpl(device.type()).getStream(device)};
}

StreamEvent DeviceStream::record() const {
  StreamEvent event;
  if (!stream_) return event;
  event.event_ = std::make_shared<c10::Event>(device_.type());
  event.event_->record(*stream_);
  return event;
}

std::shared_ptr<c10::Event> DeviceStream::record_time() const {
  auto event = std::make_shared<c10::Event>(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
  event->record(*stream_);
  return event;
}

void DeviceStream::wait(const StreamEvent& event) const {
  if (stream_ && event.event_) event.event_->block(*stream_);
}

void DeviceStream::synchronize() const {
  if (stream_) stream_->synchronize();
}

DeviceStream::Scope::Scope(const DeviceStream& stream) {
  if (!stream.stream_) return;
  guard_.reset_stream(*stream.stream_);
  c10::AutogradState& autograd = c10::AutogradState::get_tls_state();
  was_multithreaded_ = autograd.get_multithreading_enabled();
  autograd.set_multithreading_enabled(false);
}

DeviceStream::Scope::~Scope() {
  if (guard_.current_stream()) c10::AutogradState::get_tls_state().set_multithreading_enabled(was_multithreaded_);
}

}  // namespace lockstep
