// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/text.hpp"

#include <filesystem>
#include <iomanip>
#include <sstream>
#include <string_view>

namespace lockstep {
namespace {

/// Bytes of the UTF-8 character at `at` (RFC 3629); 0: it is none.
std::size_t character_bytes(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(at);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  const std::size_t bytes = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (at + bytes > text.size()) return 0;
  for (std::size_t i = at + 1; i < at + bytes; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  // Longer than it needs to be, half of a pair of UTF-16, or beyond the last code point.
  const unsigned second = byte(at + 1);
  const bool wrong = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
                     (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
  return wrong ? 0 : bytes;
}

std::string escaped(unsigned char byte) {
  constexpr const char* digits = "0123456789abcdef";
  return {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
}

}  // namespace

std::string one_line(std::string text, std::size_t most) {
  const bool cut = text.size() > most;
  std::string line;
  for (std::size_t at = 0; at < text.size() && at < most;) {
    const std::size_t bytes = character_bytes(text, at);
    const auto code = static_cast<unsigned char>(text[at]);
    if (bytes == 0)
      line += escaped(code);
    else if (code < 0x20 || code == 0x7F)
      line += ' ';
    else
      line.append(text, at, bytes);
    at += bytes == 0 ? 1 : bytes;
  }
  return cut ? line + "..." : line;
}

std::string reason_of(const std::exception& error) {
  if (const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&error))
    return file->path1().string() + ": " + file->code().message();
  const std::string text = error.what();
  const std::size_t end = text.starts_with("[json.exception.") ? text.find("] ") : std::string::npos;
  return end == std::string::npos ? text : text.substr(end + 2);
}

std::string fixed_text(double number, int digits) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(digits) << number;
  return out.str();
}

std::string time_text(double us) {
  const double ms = us * 1e-3;
  if (ms < 0.0005) return "0 ms";
  if (ms >= 9999.5) return fixed_text(ms * 1e-3, 1) + " s";
  return fixed_text(ms, ms >= 99.95 ? 0 : ms >= 9.995 ? 1 : ms >= 0.9995 ? 2 : 3) + " ms";
}

std::string percent_text(double share) {
  return fixed_text(100 * share, 1) + " %";
}

std::string count_text(std::int64_t count) {
  if (count < 100'000) return std::to_string(count);
  return fixed_text(static_cast<double>(count) * 1e-6, count < 10'000'000 ? 2 : 1) + " M";
}

}  // namespace lockstep
