// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/durable_files.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "runtime/checkpoint/checkpoint_error.hpp"

namespace lockstep {
namespace {

constexpr std::size_t kPiece = std::size_t{16} << 20;  // per call: a slow disk still moves several a minute

Error cannot_write(const std::string& path) {
  return Error(concat("checkpoint: cannot write ", path, ": ", std::strerror(errno),
                      errno == ENOSPC ? "; make room, or keep fewer checkpoints (checkpoint.keep)" : ""));
}

CheckpointError cannot_read(const std::string& path) {
  return {path, concat("cannot be read: ", std::strerror(errno))};
}

}  // namespace

File File::to_read(const std::string& path, FileProgress progress) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw cannot_read(path);
  File file(path, descriptor, std::move(progress));
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) throw cannot_read(path);
  if (!S_ISREG(status.st_mode)) throw CheckpointError(path, "is not a file");
  return file;
}

File File::to_write(const std::string& path, FileProgress progress) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) throw cannot_write(path);
  return {path, descriptor, std::move(progress)};
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      progress_(std::move(other.progress_)) {}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::int64_t File::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) throw cannot_read(path_);
  return status.st_size;
}

void File::read(std::int64_t offset, void* to, std::size_t bytes) const {
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, at, std::min(bytes, kPiece), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw cannot_read(path_);
    if (got == 0) throw CheckpointError(path_, concat("ends at byte ", offset, ", ", bytes, " bytes early"));
    at += got;
    offset += got;
    bytes -= static_cast<std::size_t>(got);
    moved();
  }
}

void File::write(const void* from, std::size_t bytes) {
  const auto* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t put = ::write(descriptor_, at, std::min(bytes, kPiece));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw cannot_write(path_);
    at += put;
    bytes -= static_cast<std::size_t>(put);
    moved();
  }
}

void File::finish() {
  // What is no regular file (a FIFO that an export goes to) has nothing to sync.
  if (::fsync(descriptor_) != 0 && errno != EINVAL) throw cannot_write(path_);
  moved();
  if (::close(std::exchange(descriptor_, -1)) != 0) throw cannot_write(path_);
}

MappedFile::MappedFile(const File& file) : size_(static_cast<std::size_t>(file.size())) {
  if (size_ == 0) return;
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (mapped == MAP_FAILED) throw cannot_read(file.path());
  ::madvise(mapped, size_, MADV_SEQUENTIAL);
  data_ = static_cast<const char*>(mapped);
}

void MappedFile::forget(std::size_t begin, std::size_t end) const {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  begin = begin / page * page;
  if (begin < end) ::madvise(const_cast<char*>(data_) + begin, end - begin, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<char*>(data_), size_);
}

std::string read_text(const std::string& path) {
  const File file = File::to_read(path);
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, text.data(), text.size());
  return text;
}

void write_text(const std::string& path, const std::string& text, const FileProgress& progress) {
  File file = File::to_write(path, progress);
  file.write(text.data(), text.size());
  file.finish();
}

void sync_folder(const std::string& path, const FileProgress& progress) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool done = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) ::close(descriptor);
  errno = reason;
  // Some network file systems have no fsync for folders; there the rename is as safe as they make it.
  if (!done && reason != EINVAL && reason != ENOTSUP) throw cannot_write(path);
  if (progress) progress();
}

}  // namespace lockstep
