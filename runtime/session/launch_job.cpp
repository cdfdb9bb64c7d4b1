// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/launch_job.hpp"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <optional>
#include <sstream>

#include "runtime/checkpoint/manifest.hpp"
#include "runtime/host/host_probe.hpp"
#include "runtime/host/job_shape.hpp"
#include "runtime/host/launcher_process.hpp"
#include "runtime/host/launcher_terminal.hpp"
#include "runtime/host/stop_signals.hpp"
#include "runtime/schedule/schedule_text.hpp"
#include "runtime/session/process.hpp"

namespace lockstep {

std::string story_text(const Story& story, const std::string& run_folder) {
  const bool over = story.end == Story::End::failed || story.end == Story::End::killed;
  return text_of(story, over ? latest_good_checkpoint(run_folder).path : "");
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

void take_job(LaunchOptions& options, const Config& config) {
  options.run_folder = config.run_dir;
  if (!options.shrink) return;
  const Section workers = config.root.section("workers");
  if (config.workers.per_rank.size() > 1)
    throw workers.error("per_rank", concat("got a list of ", config.workers.per_rank.size(),
                                           " ranks with launch --shrink, expected auto or one number: which of them ",
                                           "will be left is not known"));
  const auto is_cpu = [](const std::string& device) { return device == "cpu"; };
  if (!config.workers.on_cpus_alone() &&
      std::any_of(config.workers.devices.begin(), config.workers.devices.end(), is_cpu))
    throw workers.error("devices",
                        "got cpu beside other devices with launch --shrink, expected one kind: with fewer "
                        "workers a stage would change from one to the other, and with it the bits");
  const std::string file = config.pipeline.schedule_file();
  options.replicas = config.replicas.count;
  options.pipeline_workers = file.empty() ? config.pipeline.workers() : read_csv(file).workers();
  options.gradient_groups = config.train.gradient_groups > 0 ? 0 : config.gradient_groups();
  options.sets_per_rank = !config.workers.per_rank.empty();
}

namespace {

constexpr std::chrono::seconds kHostAnswers{15};

std::string this_program() {
  std::error_code failure;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", failure);
  if (failure) throw Error(concat("cannot find this program: ", failure.message()));
  return path.string();
}

/// `--resume X` of the first start gives way to `--resume auto`.
std::vector<std::string> resuming(const std::vector<std::string>& command) {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < command.size(); ++i) {
    if (command[i] == "--resume") {
      ++i;
      continue;
    }
    if (!command[i].starts_with("--resume=")) result.push_back(command[i]);
  }
  result.insert(result.end(), {"--resume", "auto"});
  return result;
}

/// The checkpoint of another run that the first start went on from; empty: none.
std::string resumed_from(const std::vector<std::string>& command) {
  std::string from;
  for (std::size_t i = 0; i < command.size(); ++i) {
    if (command[i] == "--resume" && i + 1 < command.size()) from = command[i + 1];
    if (command[i].starts_with("--resume=")) from = command[i].substr(command[i].find('=') + 1);
  }
  return from == "auto" ? "" : from;
}

/// What the launcher's code means: a rank that a signal ended is a lost rank, and so is one of a host that is gone.
int exit_code_of(const LauncherEnd& end, const std::string& run_folder) {
  constexpr int kSecondSignal = 128;
  const int lost = static_cast<int>(ExitCode::watchdog);
  if (end.was_overdue) {
    const int code = read_first_failure(run_folder).code;
    return code == 0 ? lost : code;
  }
  const bool ours = end.code == 0 || end.code == 1 || end.code == 2 || end.code == 4 || end.code == 127;
  return ours || end.code > kSecondSignal ? end.code : lost;
}

/// A rank that vanished, or that a signal ended; not one that left with an exit code.
bool was_lost(const FirstKilled& rank) {
  return rank.how.empty() || rank.how.find("SIG") != std::string::npos || rank.how.starts_with("signal");
}

class Launch {
 public:
  explicit Launch(const LaunchOptions& options) : options_(options), launcher_(words_of(options.mpiexec)) {
    shape_.hosts = options.hosts.empty() ? HostList{{"", options.ranks}} : options.hosts;
    shape_.ranks = options.ranks;
    shape_.replicas = options.replicas;
    shape_.pipeline_workers = options.pipeline_workers;
  }

  int run() {
    check_hosts();
    if (StopSignals::asked()) return 128 + SIGTERM;
    for (int restart = 0;; ++restart) {
      const LauncherEnd end = run_launcher(line(restart > 0), options_.run_folder, program_, console_);
      const int code = exit_code_of(end, options_.run_folder);
      if (code == 0 || code == static_cast<int>(ExitCode::user_input) || code == 127) return code;
      const bool by_ours = StopSignals::asked() && (end.code == SIGTERM || end.code == SIGUSR1);
      if (by_ours) return 128 + end.code;  // the ranks could not be asked yet
      if (StopSignals::insisted() != 0) return 128 + StopSignals::insisted();
      const bool may_go_on = tell(end) && !StopSignals::asked() && restart < options_.restarts && !loses_start();
      if (!may_go_on) return code;
      const std::optional<std::string> how = next_shape();
      if (StopSignals::asked() || !how) return code;
      std::cerr << "lockstep: launch: restart " << restart + 1 << " of " << options_.restarts << *how << std::endl;
    }
  }

  Console& console() { return console_; }
  const std::vector<std::string>& launcher() const { return launcher_; }

 private:
  std::vector<std::string> line(bool restarted) const {
    std::vector<std::string> line = launcher_;
    if (!options_.hosts.empty()) line.insert(line.end(), {"-host", text_of(shape_.hosts)});
    line.insert(line.end(), {"-n", std::to_string(shape_.ranks), program_});
    const std::vector<std::string> command = restarted ? resuming(options_.command) : options_.command;
    line.insert(line.end(), command.begin(), command.end());
    for (const std::string& setting : settings()) line.insert(line.end(), {"--set", setting});
    return line;
  }

  /// Of a job that has shrunk.
  std::vector<std::string> settings() const {
    std::vector<std::string> settings;
    if (shape_.replicas != options_.replicas) settings.push_back(concat("replicas.count=", shape_.replicas));
    if (options_.sets_per_rank && (shape_.ranks != options_.ranks || !settings.empty()))
      settings.emplace_back("workers.per_rank=auto");
    // A checkpoint has its own; without one the job begins again, and shall compute what it would have computed.
    if (!settings.empty() && options_.gradient_groups > 0 && !has_checkpoint())
      settings.push_back(concat("train.gradient_groups=", options_.gradient_groups));
    return settings;
  }

  bool has_checkpoint() const { return !list_checkpoints(checkpoints_of(options_.run_folder)).empty(); }

  /// Says what happened. False: it would happen again, such as a loss that was not finite.
  bool tell(const LauncherEnd& end) {
    story_ = {};
    const std::string ended = end.was_overdue
                                  ? "the job has failed, and mpiexec waited for a host that does not answer: ended it"
                                  : concat("mpiexec ended with code ", end.code);
    std::string problem;
    if (end.ranks_started) try {
        remember(options_.run_folder, end.ranks);
        story_ = story_of(options_.run_folder);
        std::cerr << "lockstep: launch: " << ended << "\n" << story_text(story_, options_.run_folder) << std::flush;
        has_trained_ = true;
        return story_.end != Story::End::done;
      } catch (const UserError& error) {
        problem = concat(": ", error.what());
      }
    std::cerr << "lockstep: launch: " << ended << " before training" << problem << std::endl;
    return has_trained_;
  }

  /// A restart would not go on from where the first start did.
  bool loses_start() const {
    const std::string from = resumed_from(options_.command);
    if (from.empty() || has_checkpoint()) return false;
    std::cerr << "lockstep: launch: no restart: the job went on from " << from << ", and " << options_.run_folder
              << " has no checkpoint of its own yet; start it again with another run_dir" << std::endl;
    return true;
  }

  /// Takes what was lost out of the job, and says so; none: nothing is left.
  std::optional<std::string> next_shape() {
    if (options_.ranks_after_restart > 0) {
      shape_.ranks = options_.ranks_after_restart;
      return concat(" with ", shape_.ranks, " ranks");
    }
    if (!options_.shrink) return "";
    const Lost lost = find_lost();
    if (lost.empty()) return concat(" with all of it: ", text_of(shape_, shape_));
    const std::optional<JobShape> after = without(shape_, lost);
    if (!after) {
      std::cerr << "lockstep: launch: no restart: nothing is left without " << text_of(lost) << std::endl;
      return std::nullopt;
    }
    const JobShape before = std::exchange(shape_, *after);
    return concat(" without ", text_of(lost), ": ", text_of(shape_, before));
  }

  struct DeadHost {
    std::string name;
    HostProblem problem;
  };

  /// Of several hosts, those that do not answer.
  std::vector<DeadHost> dead_hosts() const {
    std::vector<std::string> names;
    for (const HostSlots& host : shape_.hosts) names.push_back(host.name);
    if (names.size() < 2) return {};
    const auto problems = probe_hosts(launcher_, names, kHostAnswers, [] { return StopSignals::asked().load(); });
    std::vector<DeadHost> dead;
    for (std::size_t i = 0; i < names.size() && !StopSignals::asked(); ++i)
      if (!problems[i].empty()) dead.push_back({names[i], problems[i]});
    return dead;
  }

  /// hydra waits for ever for a host that it cannot reach.
  void check_hosts() const {
    const std::vector<DeadHost> dead = dead_hosts();
    if (dead.empty()) return;
    throw UserError(concat("launch: host ", dead.front().name, " does not answer: ", dead.front().problem,
                           dead.size() > 1 ? concat(", nor do ", dead.size() - 1, " more") : "",
                           "; try that command, or leave the host out"));
  }

  Lost find_lost() const {
    Lost lost;
    for (const DeadHost& host : dead_hosts()) {
      lost.hosts.push_back(host.name);
      std::cerr << "lockstep: launch: host " << host.name << " does not answer: " << host.problem << std::endl;
    }
    const std::optional<FirstKilled>& first = story_.first_killed;
    if (!first || !was_lost(*first)) return lost;
    const int host = shape_.host_of_rank(first->rank);
    const bool went_with_it =
        host >= 0 && std::find(lost.hosts.begin(), lost.hosts.end(),
                               shape_.hosts[static_cast<std::size_t>(host)].name) != lost.hosts.end();
    if (!went_with_it) lost.ranks.push_back({first->rank, first->how, first->certain});
    return lost;
  }

  const LaunchOptions& options_;
  const std::vector<std::string> launcher_;
  const std::string program_ = this_program();
  Console console_;
  JobShape shape_;
  Story story_;  // of the start before
  bool has_trained_ = false;
};

}  // namespace

int launch(const LaunchOptions& options) {
  StopSignals signals(signal_launcher);
  signals.ask(signal_launcher);
  Launch launch(options);
  if (launch.console().columns() > 0 && passes_on(launch.launcher()))
    setenv(kColumnsVariable, std::to_string(launch.console().columns()).c_str(), 1);
  else
    unsetenv(kColumnsVariable);
  return launch.run();
}

}  // namespace lockstep
