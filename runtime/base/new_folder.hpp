// SPDX-License-Identifier: Apache-2.0
//
// A folder that somebody asked for: there whole or not at all. Until it is published it is called PATH.part-PROCESS.
#pragma once

#include <string>

namespace lockstep {

class NewFolder {
 public:
  /// `flag`: what named it, for errors: UserError when it is there already, or cannot be made.
  NewFolder(std::string flag, std::string path);
  /// Removes what was not published.
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::string& part() const { return part_; }  ///< where to write
  void publish();

 private:
  std::string flag_, path_, part_;
};

}  // namespace lockstep
