// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/launcher_terminal.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "runtime/base/error.hpp"

namespace lockstep {

namespace fs = std::filesystem;

namespace {

std::string of_process(int pid, const std::string& name) {
  return concat("/proc/", pid, "/", name);
}

std::string link_at(const std::string& path) {
  std::error_code none;
  return fs::read_symlink(path, none).string();
}

bool is_program(int pid, const std::string& name) {
  return fs::path(link_at(of_process(pid, "exe"))).filename() == name;
}

/// 0 when it cannot be read.
int parent_of(int pid) {
  std::ifstream status(of_process(pid, "status"));
  for (std::string key, rest; status >> key && std::getline(status, rest);)
    if (key == "PPid:") return std::atoi(rest.c_str());
  return 0;
}

bool has_open(int pid, const std::string& file) {
  std::error_code failure;
  fs::directory_iterator entries(of_process(pid, "fd"), failure);
  for (; !failure && entries != fs::directory_iterator(); entries.increment(failure))
    if (link_at(entries->path()) == file) return true;
  return false;
}

std::vector<std::string> arguments_of(int pid) {
  std::ifstream file(of_process(pid, "cmdline"), std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

/// The launcher's own: what stands before our name in its command line, or all where that is not to be found.
std::vector<std::string> flags_of_launcher(int pid) {
  std::vector<std::string> words = arguments_of(pid);
  const std::vector<std::string> ours = arguments_of(getpid());
  if (!ours.empty()) words.erase(std::find(words.begin(), words.end(), ours.front()), words.end());
  return words;
}

}  // namespace

bool passes_on(const std::vector<std::string>& launcher) {
  // hydra, Open MPI and srun: files for what is heard, labels before each line.
  static const std::vector<std::string> whole = {"l", "o", "e"};
  static const std::vector<std::string> beginnings = {"err", "out", "prepend", "label", "tag", "timestamp", "xml"};
  return std::none_of(launcher.begin(), launcher.end(), [](const std::string& word) {
    if (word.empty() || word[0] != '-') return false;
    const std::string name = word.substr(std::min(word.find_first_not_of('-'), word.size()));
    return std::find(whole.begin(), whole.end(), name) != whole.end() ||
           std::any_of(beginnings.begin(), beginnings.end(),
                       [&](const std::string& beginning) { return name.starts_with(beginning); });
  });
}

Console::Terminal terminal_of_launcher() {
  if (isatty(STDERR_FILENO) == 1) return {STDERR_FILENO, 0, true};
  struct stat file {};
  if (fstat(STDERR_FILENO, &file) != 0 || !S_ISFIFO(file.st_mode)) return {};
  if (const char* columns = std::getenv(kColumnsVariable)) return {-1, std::max(std::atoi(columns), 0), true};
  const int proxy = getppid(), launcher = parent_of(proxy);
  if (!is_program(proxy, "hydra_pmi_proxy") || !has_open(proxy, link_at("/proc/self/fd/2"))) return {};
  if (!is_program(launcher, "mpiexec.hydra") || !passes_on(flags_of_launcher(launcher))) return {};
  // We lead a session without a terminal, and shall not take this one for it.
  const int terminal = open(of_process(launcher, "fd/2").c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0) return {};
  if (isatty(terminal) == 1) return {terminal, 0, true};
  close(terminal);
  return {};
}

}  // namespace lockstep
