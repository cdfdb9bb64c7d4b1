// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/resume_point.hpp"

#include <filesystem>
#include <sstream>

#include "runtime/checkpoint/manifest.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

/// What is wrong with a checkpoint, as all ranks together see it; the same on every rank.
std::string damage_of(Process& process, const std::string& checkpoint) {
  const std::vector<std::string> mine = find_damage(checkpoint, process.rank(), process.size());
  const std::vector<std::string> all = process.all_gather(mine.empty() ? "" : mine.front(), kLongPatience);
  for (const std::string& damage : all)
    if (!damage.empty()) return damage;
  return "";
}

/// Newest first, as rank 0 sees them.
std::vector<std::string> candidates(Process& process, const std::string& run_dir) {
  std::string paths;
  if (process.is_root())
    for (const CheckpointPlace& place : list_checkpoints(checkpoints_of(run_dir))) paths = place.path + "\n" + paths;
  std::istringstream lines(process.all_gather(paths).front());
  std::vector<std::string> list;
  for (std::string line; std::getline(lines, line);) list.push_back(line);
  return list;
}

ResumePoint newest_good(Process& process, const std::string& run_dir, const std::string& flag) {
  ResumePoint point;
  point.reuses_folder = true;
  for (const std::string& path : candidates(process, run_dir)) {
    const std::string damage = damage_of(process, path);
    if (damage.empty()) {
      point.checkpoint = path;
      return point;
    }
    point.skipped.push_back(damage);
  }
  if (!point.skipped.empty() && process.is_root())
    throw UserError(concat(flag, " auto: no checkpoint in ", checkpoints_of(run_dir),
                           " is good: ", join(point.skipped, "; "),
                           "; repair one, or train from the start in another folder: --set run_dir=..."));
  return point;
}

}  // namespace

ResumePoint choose_checkpoint(Process& process, const std::string& resume, const std::string& run_dir,
                              const std::string& flag) {
  if (resume.empty()) return {};
  if (resume == "auto") return newest_good(process, run_dir, flag);
  ResumePoint point;
  point.checkpoint = resume;
  fs::path folder = fs::weakly_canonical(fs::absolute(resume));
  if (!folder.has_filename()) folder = folder.parent_path();
  point.reuses_folder = fs::weakly_canonical(fs::absolute(checkpoints_of(run_dir))) == folder.parent_path();
  const std::string damage = damage_of(process, resume);
  if (!damage.empty() && process.is_root()) throw UserError(concat(flag, ": ", damage, other_good_checkpoint(resume)));
  return point;
}

}  // namespace lockstep
