// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/story.hpp"

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
#include <set>
#include <sstream>
#include <utility>

#include "runtime/base/error.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {

namespace fs = std::filesystem;

namespace {

/// Last signs of life that are closer than this do not tell who was first.
constexpr std::int64_t kTogetherNs = 3'000'000;

std::string launcher_file(const std::string& run_folder) {
  return recorder_folder(run_folder) + "/launcher";
}

std::string end_file(const std::string& run_folder) {
  return recorder_folder(run_folder) + "/end";
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
  return time_text(static_cast<double>(ns) * 1e-3);
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
  if (stages.empty()) return concat("server (row ", log.owner.row, ")");
  const std::string replica = log.owner.replica < 0 ? "" : concat("replica ", log.owner.replica, ", ");
  return concat("worker ", log.owner.row, " (", replica, stages, ")");
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
  if (log.activity == Activity::idle) return concat("after step ", last->step, ", waiting for something to do");
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

/// A line for each: "seen PID HOST HOW" or "reported PID HOST HOW".
RankEnds read_rank_ends(const std::string& run_folder) {
  RankEnds ends;
  std::ifstream file(launcher_file(run_folder));
  for (std::string source; file >> source;) {
    EndedRank rank;
    file >> rank.pid >> rank.host;
    file.ignore(1);
    if (!std::getline(file, rank.how)) break;
    if (source == "seen")
      ends.seen.push_back(rank);
    else
      ends.reported = rank;
  }
  return ends;
}

std::optional<JobEnd> read_job_end(const std::string& run_folder) {
  JobEnd end;
  std::ifstream file(end_file(run_folder));
  if (!(file >> end.code)) return std::nullopt;
  file.ignore(1);
  end.message.assign(std::istreambuf_iterator<char>(file), {});
  return end;
}

std::string how_text(const EndedRank& rank) {
  return rank.how.empty() ? "" : concat(" (", rank.how, ")");
}

/// MPI aborts a process, or lets it exit, when another is gone, whose end the kernel may come to later.
bool was_no_consequence(const EndedRank& rank) {
  return rank.how.starts_with("SIG") && rank.how != signal_name(SIGABRT);
}

bool is_of(const FlightLog& log, const EndedRank& rank) {
  return log.pid == rank.pid && log.owner.host == rank.host;
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
      const std::optional<JobEnd> end = read_job_end(folder_);
      story_.headline = !end             ? "all workers came to the end of the job"
                        : end->code == 0 ? "the job came to its end in good order: " + end->message
                                         : concat("the job ended with exit code ", end->code, ": ", end->message);
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
    find_killed();
  }

  /// A process that nothing more was heard of.
  struct Silent {
    const FlightLog* log = nullptr;  // of its first worker
    std::int64_t seen_ns = 0;        // the last sign of life of any

    std::string name() const { return process_of(*log); }
    std::string story() const { return concat(who(*log), ", ", doing(*log, log->seen_ns)); }
  };

  /// By last sign of life.
  std::vector<Silent> silent_processes() const {
    std::map<std::pair<std::string, int>, Silent> found;
    for (const FlightLog& log : logs_) {
      if (log.end != FlightEnd::none) continue;
      Silent& process = found[{log.owner.host, log.pid}];
      if (!process.log) process.log = &log;
      process.seen_ns = std::max(process.seen_ns, log.seen_ns);
    }
    std::vector<Silent> processes;
    for (const auto& [id, process] : found) processes.push_back(process);
    std::sort(processes.begin(), processes.end(),
              [](const Silent& a, const Silent& b) { return a.seen_ns < b.seen_ns; });
    return processes;
  }

  void find_killed() {
    std::vector<Silent> silent = silent_processes();
    const RankEnds ends = read_rank_ends(folder_);
    const EndedRank* first_seen = nullptr;
    for (const EndedRank& rank : ends.seen) {
      const auto at = std::find_if(silent.begin(), silent.end(), [&](const Silent& s) { return is_of(*s.log, rank); });
      if (at == silent.end()) continue;
      // Those that were seen to end later were not first.
      if (first_seen)
        silent.erase(at);
      else
        first_seen = &rank;
    }
    // mpiexec may have another name for the host.
    const auto crashed =
        std::find_if(silent.begin(), silent.end(), [&](const Silent& s) { return s.log->pid == ends.reported.pid; });
    if (silent.empty())
      story_.headline = "the job ended after training, without a worker's failure";
    else if (first_seen && silent.size() == 1)
      tell_first(silent.front(), *first_seen,
                 /*certain=*/all_ranks_left_a_recorder() && was_no_consequence(*first_seen));
    else if (crashed != silent.end())
      tell_first(*crashed, ends.reported, /*certain=*/false);
    else
      tell_silent(silent);
  }

  bool all_ranks_left_a_recorder() const {
    std::set<int> ranks;
    for (const FlightLog& log : logs_) ranks.insert(log.owner.rank);
    return ranks.size() == static_cast<std::size_t>(logs_.front().owner.ranks);
  }

  void tell_first(const Silent& process, const EndedRank& ended, bool certain) {
    tell_first(process, how_text(ended), certain);
    story_.first_killed->how = ended.how;
  }

  void tell_first(const Silent& process, const std::string& evidence, bool certain) {
    story_.first_killed = {process.log->owner.rank, "", certain};
    story_.headline = concat("killed: ", process.name(), certain ? ", died first" : ", probably died first", evidence,
                             ": ", process.story());
    marks_[process.name()] = certain ? "first" : "probably first";
  }

  /// Nothing is known of them but when they fell silent.
  void tell_silent(const std::vector<Silent>& silent) {
    const Silent& first = silent[0];
    story_.first_killed = {first.log->owner.rank, "", false};
    if (silent.size() == 1) {
      story_.headline = concat(first.name(), ", was killed, or the machine went down, at ", clock_time(first.seen_ns));
      return;
    }
    const Silent& next = silent[1];
    const std::int64_t before_ns = next.seen_ns - first.seen_ns;
    if (before_ns >= kTogetherNs)
      return tell_first(first, concat(": its last sign of life came ", duration(before_ns), " before any other's"),
                        /*certain=*/false);
    story_.headline =
        concat("killed: ", first.name(), ", or ", next.name(), ", probably died first: their last signs of life are ",
               duration(before_ns), " apart: ", first.story(), "; or ", next.story());
    marks_[first.name()] = marks_[next.name()] = "probably one of the two";
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
    const auto mark = marks_.find(process_of(log));
    return mark == marks_.end() ? text : concat(text, "  <- ", mark->second);
  }

  std::string folder_;
  std::vector<FlightLog> logs_;
  bool running_;
  std::map<std::string, const char*> marks_;  // by process: what its lines end with
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

void remember(const std::string& run_folder, const RankEnds& ends) {
  if (ends.seen.empty() && ends.reported.pid == 0) return;
  std::ofstream file(launcher_file(run_folder));
  const auto write = [&](const char* source, const EndedRank& rank) {
    file << source << " " << rank.pid << " " << rank.host << " " << rank.how << "\n";
  };
  for (const EndedRank& rank : ends.seen) write("seen", rank);
  if (ends.reported.pid != 0) write("reported", ends.reported);
}

void remember(const std::string& run_folder, const JobEnd& end) {
  std::ofstream(end_file(run_folder)) << end.code << " " << end.message;
}

std::string signal_name(int number) {
  static const std::map<int, const char*> kNames = {
      {SIGINT, "INT"},   {SIGILL, "ILL"},   {SIGABRT, "ABRT"}, {SIGBUS, "BUS"},   {SIGFPE, "FPE"},   {SIGKILL, "KILL"},
      {SIGSEGV, "SEGV"}, {SIGTERM, "TERM"}, {SIGHUP, "HUP"},   {SIGPIPE, "PIPE"}, {SIGQUIT, "QUIT"}, {SIGXCPU, "XCPU"}};
  const auto name = kNames.find(number);
  return name == kNames.end() ? concat("signal ", number) : concat("SIG", name->second);
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
