// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/tensorboard.hpp"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "runtime/base/error.hpp"

namespace lockstep {
namespace {

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) != 0 ? 0x82f63b78 : 0);
    table[byte] = rest;
  }
  return table;
}

// Protocol buffers, encoding: a field is its key (number << 3 | wire type) and its value. A varint has 7 bits a byte,
// the lowest first; the top bit says that more follow.
enum class Wire : std::uint64_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

std::string varint(std::uint64_t value) {
  std::string text;
  for (; value >= 0x80; value >>= 7) text += static_cast<char>((value & 0x7f) | 0x80);
  return text += static_cast<char>(value);
}

template <typename Bits>
std::string little_endian(Bits bits) {
  std::string text;
  for (std::size_t i = 0; i < sizeof(Bits); ++i) text += static_cast<char>(bits >> (8 * i) & 0xff);
  return text;
}

std::string key(std::uint64_t field, Wire wire) {
  return varint(field << 3 | static_cast<std::uint64_t>(wire));
}
std::string integer_field(std::uint64_t field, std::int64_t value) {
  return key(field, Wire::varint) + varint(static_cast<std::uint64_t>(value));
}
std::string double_field(std::uint64_t field, double value) {
  return key(field, Wire::fixed64) + little_endian(std::bit_cast<std::uint64_t>(value));
}
std::string float_field(std::uint64_t field, float value) {
  return key(field, Wire::fixed32) + little_endian(std::bit_cast<std::uint32_t>(value));
}
std::string bytes_field(std::uint64_t field, std::string_view value) {
  return key(field, Wire::bytes) + varint(value.size()) + std::string(value);
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

/// Creates a file that was not there, so that two writers never share one.
std::string create_file(const std::string& folder) {
  const std::string name = concat("events.out.tfevents.", static_cast<std::int64_t>(unix_time_s()), ".", host_name());
  const std::string first = (std::filesystem::path(folder) / name).string();
  std::string path = first;
  for (int next = 1;; ++next) {
    if (std::FILE* file = std::fopen(path.c_str(), "wbx")) {
      std::fclose(file);
      return path;
    }
    if (errno != EEXIST) throw UserError(concat("tensorboard: cannot write ", path, ": ", std::strerror(errno)));
    path = concat(first, ".", next);
  }
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> table = crc_table();
  std::uint32_t crc = 0xffffffff;
  for (const char byte : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8;
}

double unix_time_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

TensorBoardWriter::TensorBoardWriter(const std::string& folder, std::int64_t first_step)
    : path_(create_file(folder)), out_(path_, std::ios::binary) {
  write(double_field(1, unix_time_s()) + bytes_field(3, "brain.Event:2"));
  if (first_step < 0) return;
  constexpr std::int64_t start = 1;
  write(double_field(1, unix_time_s()) + integer_field(2, first_step) + bytes_field(7, integer_field(1, start)));
}

void TensorBoardWriter::scalar(std::string_view tag, std::int64_t step, double value, double wall_time_s) {
  const std::string point = bytes_field(1, tag) + float_field(2, static_cast<float>(value));
  write(double_field(1, wall_time_s) + integer_field(2, step) + bytes_field(5, bytes_field(1, point)));
}

void TensorBoardWriter::write(std::string_view event) {
  const std::string length = little_endian(static_cast<std::uint64_t>(event.size()));
  out_ << length << little_endian(masked_crc32c(length)) << event << little_endian(masked_crc32c(event)) << std::flush;
  if (!out_) throw Error(concat("tensorboard: cannot write ", path_, ": ", std::strerror(errno)));
}

}  // namespace lockstep
