// SPDX-License-Identifier: Apache-2.0
//
// The bytes of files, in memory without a copy where they are many. Private to this folder.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/data/dataset.hpp"

namespace lockstep {

/// One file: of a megabyte or more it is mapped, so that its pages are the system's cache; a smaller one, or what is no
/// regular file, is read. A mapped file that is cut short while somebody looks at it ends the process (SIGBUS); one
/// that another takes the place of stays as it was.
class FileBytes {
 public:
  /// The first `most` bytes (0: all). Throws DataError that names the path and the reason.
  explicit FileBytes(const std::string& path, std::int64_t most = 0);
  /// What was packed in the file.
  static FileBytes unpacked(const std::string& path, std::string bytes);
  ~FileBytes();
  FileBytes(FileBytes&& other) noexcept;
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;
  FileBytes& operator=(FileBytes&&) = delete;

  std::string_view bytes() const { return {mapped_ ? mapped_ : read_.data(), size_}; }
  /// To the first `bytes` of them.
  void shorten(std::size_t bytes) { size_ = bytes; }
  const std::string& path() const { return path_; }
  /// What a checkpoint records. Each piece, in order, is shown to `look` on the way; pages are let go behind it.
  DataFile record(const std::function<void(std::string_view piece)>& look = {}) const;
  /// Pages that have been looked at count as this process's memory until they are let go; looking again brings them
  /// back. Thread: any, also while others look.
  void let_go() const { let_go(0, size_); }

 private:
  FileBytes() = default;
  void let_go(std::size_t begin, std::size_t end) const;

  std::string path_, read_;
  std::size_t size_ = 0, mapped_size_ = 0;
  const char* mapped_ = nullptr;
};

/// Files that are looked at here and there for hours. Their pages that count as this process's memory stay below 64
/// MiB, about.
class OpenFiles {
 public:
  std::size_t size() const { return files_.size(); }
  void add(FileBytes file) {
    bytes_ += file.bytes().size();
    files_.push_back(std::move(file));
  }
  /// Whether all of their pages may stay.
  bool stay() const { return bytes_ <= kMostSeen; }
  const FileBytes& operator[](std::size_t file) const { return files_[file]; }
  /// Somebody has looked at so many bytes in one place. Thread: any.
  void seen(std::size_t bytes) const;

 private:
  static constexpr std::size_t kMostSeen = std::size_t{64} << 20;
  std::vector<FileBytes> files_;
  std::size_t bytes_ = 0;
  mutable std::atomic<std::size_t> seen_ = 0;
};

}  // namespace lockstep
