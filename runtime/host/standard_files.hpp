// SPDX-License-Identifier: Apache-2.0
//
// The process's standard files. Standard output carries results, and a result that cannot be written is an error;
// standard error is the console, which may be lost without harm.
#pragma once

#include <array>
#include <streambuf>

namespace lockstep {

/// Standard files that are closed would be the next files to be opened, such as the metrics, and the console would go
/// there. First of all in main().
void open_standard_files();

/// Stands behind std::cout while it lives, and remembers why a write failed, which std::cout itself does not.
class StandardOutput : private std::streambuf {
 public:
  StandardOutput();
  ~StandardOutput() override;
  StandardOutput(const StandardOutput&) = delete;
  StandardOutput& operator=(const StandardOutput&) = delete;
  /// Writes what is left. The errno of the first write that failed; 0: everything was written.
  int finish();

 private:
  int_type overflow(int_type next) override;
  int sync() override;

  std::streambuf* before_;
  std::array<char, 8192> buffer_{};
  int failure_ = 0;
};

}  // namespace lockstep
