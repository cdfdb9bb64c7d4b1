// SPDX-License-Identifier: Apache-2.0
//
// What people read. Programs read metrics and traces instead; the two never mix.
//
// A Log is a value that is passed to whoever speaks. It writes to a file (plain lines, every level), and to the console
// (info only from the worker that was chosen to speak; warnings and errors from all). spdlog stays behind this header,
// because no file may see both spdlog and torch. Thread-safe: workers of one process share sinks.
#pragma once

#include <memory>
#include <string>

namespace lockstep {

class Console;

class Log {
 public:
  enum class Level { debug, info, warning, error };

  struct Options {
    std::string file;          ///< path of the log file; empty: no file. Parent folders must exist.
    bool console_info = true;  ///< whether info lines go to the console
    Level file_level = Level::debug;
    std::shared_ptr<Console> console;  ///< whose moving line makes room for what is printed; null: one of its own
  };

  /// A log that drops everything: for embedding and tests.
  Log();
  /// Throws UserError when the file cannot be opened.
  explicit Log(const Options& options);

  /// The same sinks under another speaker, e.g. "worker 2 stage 5-6": shown in every line.
  Log named(const std::string& speaker) const;
  /// The same log without info lines on the console (the file still has them).
  Log quiet() const;

  void debug(const std::string& message) const;
  void info(const std::string& message) const;
  void warn(const std::string& message) const;
  void error(const std::string& message) const;
  void flush() const;

 private:
  struct Sinks;
  std::shared_ptr<Sinks> sinks_;
  std::string speaker_;
  bool quiet_ = false;
  void write(Level level, const std::string& message) const;
};

}  // namespace lockstep
