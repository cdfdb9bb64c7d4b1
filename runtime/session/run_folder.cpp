// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/run_folder.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "runtime/base/error.hpp"
#include "runtime/base/output_file.hpp"

namespace lockstep {

namespace fs = std::filesystem;

RunFolder::RunFolder(const std::string& path, bool resume) : path_(path) {
  std::error_code failure;
  fs::create_directories(path, failure);
  if (failure) throw UserError(concat("run_dir: cannot make ", path, ": ", failure.message()));
  lock_ = ::open(file("lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) throw UserError(concat("run_dir: cannot write in ", path, ": ", std::strerror(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw UserError(
        concat("run_dir: another job is running in ", path, "; give this one a folder of its own: --set run_dir=..."));
  }
  if (!resume && fs::exists(file("config.yaml"))) {
    ::close(lock_);
    throw UserError(
        concat("run_dir: ", path,
               " already holds a run; go on with it (--resume auto), choose another folder with --set run_dir=..., or "
               "remove it"));
  }
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

bool RunFolder::holds(const std::string& path, const std::string& file) {
  const OutputPlace place = place_of_output(file);
  const fs::path folder = fs::absolute(place.path).parent_path();
  return !place.in_place && fs::weakly_canonical(folder) == fs::weakly_canonical(fs::absolute(path));
}

std::string RunFolder::folder(const std::string& name) const {
  std::error_code failure;
  fs::create_directories(file(name), failure);
  if (failure) throw UserError(concat("run_dir: cannot make ", file(name), ": ", failure.message()));
  return file(name);
}

void RunFolder::write(const std::string& name, const std::string& text) const {
  write_whole_file(file(name), text);
}

}  // namespace lockstep
