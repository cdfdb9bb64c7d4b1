// SPDX-License-Identifier: Apache-2.0
//
// The root of every exception that Lockstep throws, and the exit code it stands for.
//
// Policy: exceptions for what a user or the world can cause, LOCKSTEP_CHECK (check.hpp) for our own bugs, plain values
// for expected outcomes. A message says what happened, where, what was got, what was expected, and what to do next.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace lockstep {

/// Exit codes of the `lockstep` command. Launchers OR the codes of their ranks, so every rank leaves with the same one.
enum class ExitCode : int {
  done = 0,
  fault = 1,       ///< a worker failed while the job ran
  user_input = 2,  ///< found before anything was built or written
  watchdog = 4,    ///< a wait lasted past `comm.watchdog_s`, or a rank was lost
};

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ExitCode code = ExitCode::fault)
      : std::runtime_error(message), message_(message), code_(code) {}
  const char* what() const noexcept override { return message_.c_str(); }
  ExitCode exit_code() const { return code_; }

  /// Puts a place in front, on the way up: `catch (Error& error) { error.add_place("worker 1"); throw; }` keeps the
  /// type.
  void add_place(const std::string& place) { message_ = place + ": " + message_; }

 private:
  std::string message_;
  ExitCode code_;
};

/// Something the user wrote is wrong (a file, a key, a flag, a model that does not fit together). Exit code 2.
class UserError : public Error {
 public:
  explicit UserError(const std::string& message) : Error(message, ExitCode::user_input) {}
};

/// Streams all arguments into one string: the way messages are built everywhere.
template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

/// "a, b, c" from a range of streamable things.
template <typename Range>
std::string join(const Range& range, const char* separator = ", ") {
  std::ostringstream out;
  const char* between = "";
  for (const auto& item : range) {
    out << between << item;
    between = separator;
  }
  return out.str();
}

}  // namespace lockstep
