// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/new_folder.hpp"

#include <unistd.h>

#include <filesystem>

#include "runtime/base/error.hpp"

namespace lockstep {

namespace fs = std::filesystem;

NewFolder::NewFolder(std::string flag, std::string path)
    : flag_(std::move(flag)),
      path_((fs::path(std::move(path)) / "").parent_path()),
      part_(concat(path_, ".part-", getpid())) {
  if (fs::exists(fs::symlink_status(path_)))
    throw UserError(concat(flag_, ": ", path_, " is there already; remove it or choose another"));
  std::error_code failure;
  fs::remove_all(part_, failure);
  fs::create_directories(part_, failure);
  if (failure) throw UserError(concat(flag_, ": cannot make ", part_, ": ", failure.message()));
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  fs::remove_all(part_, ignored);
}

void NewFolder::publish() {
  std::error_code failure;
  fs::rename(part_, path_, failure);
  if (failure) throw UserError(concat(flag_, ": cannot make ", path_, ": ", failure.message()));
}

}  // namespace lockstep
