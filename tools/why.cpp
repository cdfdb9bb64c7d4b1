// SPDX-License-Identifier: Apache-2.0
#include "tools/why.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <map>
#include <sstream>

#include "runtime/base/error.hpp"

namespace lockstep {

namespace fs = std::filesystem;

namespace {

std::string launcher_file(const std::string& run_folder) {
  return recorder_folder(run_folder) + "/launcher";
}

std::vector<FlightLog> read_all(const std::string& run_folder, std::vector<std::string>& problems) {
  std::vector<FlightLog> logs;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(recorder_folder(run_folder), failure)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("worker-") || !name.ends_with(".bin")) continue;
    std::string problem;
    if (auto log = read_flight_log(entry.path().string(), problem))
      logs.push_back(std::move(*log));
    else
      problems.push_back(problem);
  }
  std::sort(logs.begin(), logs.end(), [](const auto& a, const auto& b) { return a.owner.row < b.owner.row; });
  return logs;
}

bool job_is_running(const std::string& run_folder) {
  const int file = ::open((run_folder + "/lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool held = ::flock(file, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(file);
  return held;
}

std::string duration(std::int64_t ns) {
  const double ms = static_cast<double>(ns) / 1e6;
  std::ostringstream out;
  out << std::fixed << std::setprecision(ms < 10 ? 1 : 0);
  if (ms < 10'000)
    out << ms << " ms";
  else
    out << std::setprecision(1) << ms / 1e3 << " s";
  return out.str();
}

std::string clock_time(std::int64_t ns) {
  const std::time_t seconds = ns / 1'000'000'000;
  std::tm local{};
  ::localtime_r(&seconds, &local);
  std::ostringstream out;
  out << std::put_time(&local, "%H:%M:%S") << "." << std::setw(3) << std::setfill('0') << ns / 1'000'000 % 1000;
  return out.str();
}

std::string who(const FlightLog& log) {
  std::string stages;
  for (const int stage : log.stages())
    stages += concat(stages.empty() ? "" : "; ", "stage ", stage, ": ", log.layers_of(stage));
  return concat("worker ", log.owner.row, " (", stages, ")");
}

std::string process_of(const FlightLog& log) {
  return concat("rank ", log.owner.rank, " on ", log.owner.host, ", process ", log.pid);
}

/// What it was doing when it stopped; "now" for the time until `until_ns`.
std::string doing(const FlightLog& log, std::int64_t until_ns) {
  const FlightRecord* last = log.last();
  if (!last) return "had not executed anything: it was loading";
  if (log.activity == Activity::saving)
    return concat("step ", last->step, ", saving a checkpoint, for ",
                  duration(std::max<std::int64_t>(until_ns - std::max(last->begin_ns, last->end_ns), 0)));
  std::string text = concat("step ", last->step, ", ", to_string(last->mode), ", ");
  if (last->end_ns != 0) return text + concat("between instructions, after ", last->text());
  const std::string since = duration(std::max<std::int64_t>(until_ns - last->begin_ns, 0));
  if (log.waits_for >= 0)
    return text + concat("waiting for worker ", log.waits_for, " for ", since, " in ", last->text());
  text += concat("in ", last->text());
  if (last->kind == InstructionKind::compute)
    text += concat(" (stage ", last->stage, ", micro-batch ", last->micro_batch, ")");
  if (log.layer >= 0) text += concat(", layer '", log.layer_name(log.layer), "'");
  return text + concat(", for ", since);
}

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

LauncherWord launcher_word(const std::string& run_folder) {
  LauncherWord word;
  std::ifstream(launcher_file(run_folder)) >> word.pid >> word.code >> word.host;
  return word;
}

std::string how_it_ended(int code) {
  static const std::map<int, const char*> kSignals = {{SIGINT, "INT"},   {SIGILL, "ILL"},  {SIGABRT, "ABRT"},
                                                      {SIGBUS, "BUS"},   {SIGFPE, "FPE"},  {SIGKILL, "KILL"},
                                                      {SIGSEGV, "SEGV"}, {SIGTERM, "TERM"}};
  const auto name = kSignals.find(code);
  return concat("with code ", code, name == kSignals.end() ? "" : concat(", as after SIG", name->second));
}

class Teller {
 public:
  Teller(const std::string& run_folder, std::vector<FlightLog> logs)
      : folder_(run_folder), logs_(std::move(logs)), running_(job_is_running(run_folder)) {}

  Story tell() {
    find_first();
    for (const FlightLog& log : logs_) story_.lines.push_back(line_of(log));
    return story_;
  }

 private:
  void find_first() {
    const auto all = [&](FlightEnd end) {
      return std::all_of(logs_.begin(), logs_.end(), [&](const FlightLog& log) { return log.end == end; });
    };
    if (const FirstFailure failure = read_first_failure(folder_); !failure.message.empty()) {
      story_.end = Story::End::failed;
      story_.headline = concat("failed (exit code ", failure.code, "): rank ", failure.rank, " on ", failure.host, ": ",
                               failure.message);
    } else if (running_) {
      story_.end = Story::End::running;
      story_.headline = "the job is running";
    } else if (all(FlightEnd::done)) {
      story_.headline = "the job came to its end in good order";
    } else {
      find_failed_or_killed();
    }
  }

  void find_failed_or_killed() {
    const FlightLog* failed = nullptr;
    for (const FlightLog& log : logs_)
      if (log.end == FlightEnd::failed && (!failed || log.ended_ns < failed->ended_ns)) failed = &log;
    if (failed) {
      story_.end = Story::End::failed;
      story_.headline = concat("failed: ", process_of(*failed), ": ", failed->message);
      return;
    }
    story_.end = Story::End::killed;
    const LauncherWord word = launcher_word(folder_);
    for (const FlightLog& log : logs_)
      if (word.pid != 0 && log.pid == word.pid && first_pid_ == 0) {
        first_pid_ = word.pid;
        story_.headline = concat(process_of(log), ", died first, ", how_it_ended(word.code), ": ", who(log), ", ",
                                 doing(log, log.seen_ns));
      }
    if (first_pid_ == 0) find_silent();
  }

  // The processes by their last sign of life.
  void find_silent() {
    std::map<int, std::int64_t> seen;
    for (const FlightLog& log : logs_)
      if (log.end == FlightEnd::none) seen[log.pid] = std::max(seen[log.pid], log.seen_ns);
    if (seen.empty()) {
      story_.headline = "the job ended after training, without a worker's failure";
      return;
    }
    const auto earlier = [](const auto& a, const auto& b) { return a.second < b.second; };
    const auto first = std::min_element(seen.begin(), seen.end(), earlier);
    first_pid_ = first->first;
    const FlightLog& log =
        *std::find_if(logs_.begin(), logs_.end(), [&](const auto& l) { return l.pid == first_pid_; });
    if (seen.size() == 1) {
      story_.headline =
          concat(process_of(log), ", was killed, or the machine went down, at ", clock_time(first->second));
      return;
    }
    std::int64_t next = 0;
    for (const auto& [pid, time] : seen)
      if (pid != first_pid_ && (next == 0 || time < next)) next = time;
    story_.headline =
        concat("killed: ", process_of(log), ", probably died first: its last sign of life came ",
               duration(next - first->second), " before any other's: ", who(log), ", ", doing(log, log.seen_ns));
  }

  std::string line_of(const FlightLog& log) const {
    std::string text = concat(who(log), ", ", process_of(log), ": ");
    const std::int64_t until = running_ && log.end == FlightEnd::none ? wall_ns() : log.seen_ns;
    switch (log.end) {
      case FlightEnd::done: text += "done"; break;
      case FlightEnd::failed: text += concat("failed: ", first_line(log.message)); break;
      case FlightEnd::stopped: text += concat("left because another worker had failed; ", doing(log, until)); break;
      case FlightEnd::none:
        text += doing(log, until);
        if (!running_) text += concat("; last sign of life ", clock_time(log.seen_ns));
        break;
    }
    return text + (log.pid == first_pid_ ? "  <- first" : "");
  }

  std::string folder_;
  std::vector<FlightLog> logs_;
  bool running_;
  int first_pid_ = 0;
  Story story_;
};

}  // namespace

Story story_of(const std::string& run_folder) {
  std::vector<std::string> problems;
  std::vector<FlightLog> logs = read_all(run_folder, problems);
  if (logs.empty())
    throw UserError(
        concat(run_folder, ": no flight recorders in ", recorder_folder(run_folder),
               problems.empty() ? "; name the run folder of a job (run_dir)" : ": " + join(problems, "; ")));
  Story story = Teller(run_folder, std::move(logs)).tell();
  for (const std::string& problem : problems) story.lines.push_back("unreadable: " + problem);
  return story;
}

std::string text_of(const Story& story, const std::string& checkpoint) {
  std::string text = story.headline + "\n";
  for (const std::string& line : story.lines) text += "  " + line + "\n";
  if (story.end != Story::End::failed && story.end != Story::End::killed) return text;
  if (checkpoint.empty())
    return text +
           "there is no checkpoint to resume from: start again in a new run folder (checkpoint.every saves some)\n";
  return text + concat("resume from ", checkpoint, ": the same command with --resume auto\n");
}

void remember(const std::string& run_folder, const LauncherWord& word) {
  std::ofstream(launcher_file(run_folder)) << word.pid << " " << word.code << " " << word.host << "\n";
}

std::string first_failure_file(const std::string& run_folder) {
  return recorder_folder(run_folder) + "/first-failure";
}

bool first_to_fail(const std::string& run_folder, const FirstFailure& failure) {
  const int file = ::open(first_failure_file(run_folder).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) return errno != EEXIST;
  const std::string text = concat(failure.rank, " ", failure.code, " ", failure.host, "\n", failure.message);
  // A full disk has room for the name at most; then only the console has the message.
  [[maybe_unused]] const ssize_t written = ::write(file, text.data(), text.size());
  ::close(file);
  return true;
}

FirstFailure read_first_failure(const std::string& run_folder) {
  FirstFailure failure;
  std::ifstream file(first_failure_file(run_folder));
  file >> failure.rank >> failure.code >> failure.host;
  file.ignore(1);
  failure.message.assign(std::istreambuf_iterator<char>(file), {});
  return failure;
}

void fresh_recorder_folder(const std::string& run_folder) {
  const std::string folder = recorder_folder(run_folder);
  std::error_code failure;
  if (fs::exists(folder)) {
    int number = 1;
    while (fs::exists(concat(folder, ".", number))) ++number;
    fs::rename(folder, concat(folder, ".", number), failure);
  }
  if (!failure) fs::create_directories(folder, failure);
  if (failure) throw UserError(concat("run_dir: cannot make ", folder, ": ", failure.message()));
}

}  // namespace lockstep
