// SPDX-License-Identifier: Apache-2.0
//
// Files that must be on the disk when we say so. Private to this folder.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace lockstep {

/// Called after every piece of a file that has been read, written or put on the disk, by the thread that does it: how
/// others know that it goes on. May be empty.
using FileProgress = std::function<void()>;

/// An open file. Reading throws CheckpointError, writing Error; both name the path and the reason.
class File {
 public:
  static File to_read(const std::string& path, FileProgress progress = {});
  /// Made, or emptied.
  static File to_write(const std::string& path, FileProgress progress = {});
  ~File();
  File(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  File& operator=(File&&) = delete;

  std::int64_t size() const;
  /// `bytes` bytes from `offset` on; fewer are an error.
  void read(std::int64_t offset, void* to, std::size_t bytes) const;
  void write(const void* from, std::size_t bytes);
  /// On the disk (fsync; what is no regular file has none), then closed.
  void finish();
  int descriptor() const { return descriptor_; }
  const std::string& path() const { return path_; }

 private:
  File(std::string path, int descriptor, FileProgress progress)
      : path_(std::move(path)), descriptor_(descriptor), progress_(std::move(progress)) {}
  void moved() const {
    if (progress_) progress_();
  }
  std::string path_;
  int descriptor_ = -1;
  FileProgress progress_;
};

/// A file's bytes. Pages that have been looked at count as resident memory until they are forgotten.
class MappedFile {
 public:
  explicit MappedFile(const File& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const char* data() const { return data_; }
  std::size_t size() const { return size_; }
  /// Lets the pages of [begin, end) go; looking at them again brings them back.
  void forget(std::size_t begin, std::size_t end) const;

 private:
  const char* data_ = nullptr;
  std::size_t size_ = 0;
};

std::string read_text(const std::string& path);
/// Written and on the disk. Not atomic: for files of a folder that is published as a whole.
void write_text(const std::string& path, const std::string& text, const FileProgress& progress = {});
/// Names in the folder are on the disk too.
void sync_folder(const std::string& path, const FileProgress& progress = {});

}  // namespace lockstep
