// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/standard_files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>

namespace lockstep {

void open_standard_files() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) >= 0) continue;
    // The lowest free descriptor is this one. Results have nowhere to go then, and must not seem to have been written.
    const int opened = ::open("/dev/null", descriptor == STDOUT_FILENO ? O_RDONLY : O_RDWR);
    if (opened < 0) return;
  }
}

StandardOutput::StandardOutput() : before_(std::cout.rdbuf(this)) {
  setp(buffer_.data(), buffer_.data() + buffer_.size());
}

StandardOutput::~StandardOutput() {
  sync();
  std::cout.rdbuf(before_);
}

int StandardOutput::finish() {
  std::cout.flush();
  return failure_;
}

StandardOutput::int_type StandardOutput::overflow(int_type next) {
  if (sync() != 0) return traits_type::eof();
  if (!traits_type::eq_int_type(next, traits_type::eof())) sputc(traits_type::to_char_type(next));
  return traits_type::not_eof(next);
}

int StandardOutput::sync() {
  const char* at = pbase();
  while (failure_ == 0 && at < pptr()) {
    const ssize_t put = ::write(STDOUT_FILENO, at, static_cast<std::size_t>(pptr() - at));
    if (put >= 0)
      at += put;
    else if (errno != EINTR)
      failure_ = errno;
  }
  setp(buffer_.data(), buffer_.data() + buffer_.size());
  return failure_ == 0 ? 0 : -1;
}

}  // namespace lockstep
