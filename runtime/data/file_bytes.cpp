// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/file_bytes.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "runtime/data/input_files.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {
namespace {

constexpr std::size_t kMapped = std::size_t{1} << 20;  // a process may have 65530 mappings
constexpr std::size_t kPiece = std::size_t{4} << 20;
constexpr std::size_t kAround = std::size_t{2} << 20;  // a look may bring its neighbours' pages, up to a huge one

/// Null when the file is small, cannot be mapped, or is not there: then reading it says why.
const char* mapped(const std::string& path, std::size_t most, std::size_t& size) {
  struct stat status = {};
  const auto large = [&] { return S_ISREG(status.st_mode) && status.st_size >= static_cast<off_t>(kMapped); };
  // Before it is opened: who writes into a pipe would take us for its reader.
  if ((most > 0 && most < kMapped) || ::stat(path.c_str(), &status) != 0 || !large()) return nullptr;
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return nullptr;
  void* found = MAP_FAILED;
  if (::fstat(descriptor, &status) == 0 && large()) {
    size = static_cast<std::size_t>(status.st_size);
    if (most > 0) size = std::min(size, most);
    found = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  }
  ::close(descriptor);
  return found == MAP_FAILED ? nullptr : static_cast<const char*>(found);
}

}  // namespace

FileBytes::FileBytes(const std::string& path, std::int64_t most) : path_(path) {
  mapped_ = mapped(path, static_cast<std::size_t>(most), mapped_size_);
  if (!mapped_) read_ = read_file(path, most);
  size_ = mapped_ ? mapped_size_ : read_.size();
}

FileBytes FileBytes::unpacked(const std::string& path, std::string bytes) {
  FileBytes file;
  file.path_ = path;
  file.read_ = std::move(bytes);
  file.size_ = file.read_.size();
  return file;
}

FileBytes::FileBytes(FileBytes&& other) noexcept
    : path_(std::move(other.path_)),
      read_(std::move(other.read_)),
      size_(other.size_),
      mapped_size_(other.mapped_size_),
      mapped_(std::exchange(other.mapped_, nullptr)) {}

FileBytes::~FileBytes() {
  if (mapped_) ::munmap(const_cast<char*>(mapped_), mapped_size_);
}

DataFile FileBytes::record(const std::function<void(std::string_view piece)>& look) const {
  const std::string_view all = bytes();
  TextHash hash(all.size());
  for (std::size_t begin = 0; begin < all.size(); begin += kPiece) {
    const std::string_view piece = all.substr(begin, kPiece);
    hash.add(piece);
    if (look) look(piece);
    let_go(begin, begin + piece.size());
  }
  return {path_, static_cast<std::int64_t>(all.size()), hash.value()};
}

void FileBytes::let_go(std::size_t begin, std::size_t end) const {
  if (mapped_) ::madvise(const_cast<char*>(mapped_) + begin, end - begin, MADV_DONTNEED);
}

void OpenFiles::seen(std::size_t bytes) const {
  if (stay()) return;
  const std::size_t more = bytes + kAround;
  if (seen_.fetch_add(more, std::memory_order_relaxed) + more < kMostSeen) return;
  seen_.store(0, std::memory_order_relaxed);
  for (const FileBytes& file : files_) file.let_go();
}

}  // namespace lockstep
