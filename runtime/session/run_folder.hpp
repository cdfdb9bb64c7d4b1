// SPDX-License-Identifier: Apache-2.0
//
// The folder of one run: resolved config, logs, metrics, TensorBoard events, fingerprint. One job at a time owns it (a
// lock on the file `lock`), and a used one is refused unless that run is resumed, so that nothing is ever overwritten.
#pragma once

#include <string>

namespace lockstep {

class RunFolder {
 public:
  /// Makes and locks it. Throws UserError when another job holds it, when it has been used, or when it cannot be made.
  explicit RunFolder(const std::string& path, bool resume = false);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  /// Whether `file` will lie directly in the run folder `path`, which need not exist yet.
  static bool holds(const std::string& path, const std::string& file);
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  /// Makes a folder below and returns its path.
  std::string folder(const std::string& name) const;
  /// write_whole_file() in it.
  void write(const std::string& name, const std::string& text) const;

 private:
  std::string path_;
  int lock_ = -1;
};

}  // namespace lockstep
