// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/log.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "runtime/base/console.hpp"
#include "runtime/base/error.hpp"

namespace lockstep {

struct Log::Sinks {
  std::shared_ptr<spdlog::logger> console;
  std::shared_ptr<spdlog::logger> file;  // null without a log file
  bool console_info = true;
  std::shared_ptr<Console> moving;  // what else is on the console
};

namespace {

spdlog::level::level_enum to_spdlog(Log::Level level) {
  switch (level) {
    case Log::Level::debug: return spdlog::level::debug;
    case Log::Level::info: return spdlog::level::info;
    case Log::Level::warning: return spdlog::level::warn;
    case Log::Level::error: return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

Log::Log() = default;

Log::Log(const Options& options) : sinks_(std::make_shared<Sinks>()) {
  // Standard error, so that standard output stays free for results that are piped into other programs.
  auto console_sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  console_sink->set_pattern("%^%v%$");
  sinks_->console = std::make_shared<spdlog::logger>("console", console_sink);
  sinks_->console->set_level(spdlog::level::info);
  sinks_->console_info = options.console_info;
  sinks_->moving = options.console ? options.console : std::make_shared<Console>();
  if (!options.file.empty()) {
    try {
      auto file_sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file, /*truncate=*/false);
      file_sink->set_pattern("%Y-%m-%d %H:%M:%S.%e %-7l %v");
      sinks_->file = std::make_shared<spdlog::logger>("file", file_sink);
      sinks_->file->set_level(to_spdlog(options.file_level));
      sinks_->file->flush_on(spdlog::level::info);
    } catch (const spdlog::spdlog_ex& error) {
      throw UserError(concat("cannot open the log file ", options.file, ": ", error.what()));
    }
  }
}

Log Log::named(const std::string& speaker) const {
  Log copy = *this;
  copy.speaker_ = speaker;
  return copy;
}

Log Log::quiet() const {
  Log copy = *this;
  copy.quiet_ = true;
  return copy;
}

void Log::write(Level level, const std::string& message) const {
  if (!sinks_) return;
  const std::string line = speaker_.empty() ? message : "[" + speaker_ + "] " + message;
  const bool to_console = level >= Level::warning || (level == Level::info && sinks_->console_info && !quiet_);
  if (to_console) {
    const Console::Pause pause(*sinks_->moving);
    sinks_->console->log(to_spdlog(level), "{}{}", level == Level::warning ? "warning: " : "", line);
  }
  if (sinks_->file) sinks_->file->log(to_spdlog(level), "{}", line);
}

void Log::debug(const std::string& message) const {
  write(Level::debug, message);
}
void Log::info(const std::string& message) const {
  write(Level::info, message);
}
void Log::warn(const std::string& message) const {
  write(Level::warning, message);
}
void Log::error(const std::string& message) const {
  write(Level::error, message);
}

void Log::flush() const {
  if (!sinks_) return;
  sinks_->console->flush();
  if (sinks_->file) sinks_->file->flush();
}

}  // namespace lockstep
