// SPDX-License-Identifier: Apache-2.0
#include "runtime/base/size.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "runtime/base/error.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {
namespace {

constexpr std::array<std::pair<const char*, double>, 10> kUnits{{{"B", 1},
                                                                 {"KiB", 1024.0},
                                                                 {"MiB", 1048576.0},
                                                                 {"GiB", 1073741824.0},
                                                                 {"TiB", 1099511627776.0},
                                                                 {"kB", 1e3},
                                                                 {"KB", 1e3},
                                                                 {"MB", 1e6},
                                                                 {"GB", 1e9},
                                                                 {"TB", 1e12}}};
constexpr std::array<std::pair<const char*, std::int64_t>, 4> kBinary{
    {{"TiB", std::int64_t{1} << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}};

}  // namespace

std::optional<std::int64_t> parse_size(const std::string& text) {
  double number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (failure != std::errc() || !std::isfinite(number) || number < 0) return std::nullopt;
  std::string unit(end, text.data() + text.size());
  unit.erase(0, unit.find_first_not_of(' '));
  if (unit.empty()) unit = "B";
  for (const auto& [name, bytes] : kUnits) {
    if (unit != name) continue;
    const double size = std::round(number * bytes);
    if (size > 4.6e18) return std::nullopt;
    return static_cast<std::int64_t>(size);
  }
  return std::nullopt;
}

std::string size_rule() {
  return "a size such as 2GiB, 512MiB or 1.5GB";
}

std::string size_text(double bytes) {
  bytes = std::ceil(bytes);
  for (const auto& [name, size] : kBinary) {
    const double number = bytes / static_cast<double>(size);
    if (number < 1) continue;
    const int digits = number == std::floor(number) || number >= 100 ? 0 : number >= 10 ? 1 : 2;
    return concat(fixed_text(number, digits), " ", name);
  }
  return fixed_text(bytes, 0) + " B";
}

std::string exact_size_text(std::int64_t bytes) {
  if (bytes > 0)
    for (const auto& [name, size] : kBinary)
      if (bytes % size == 0) return std::to_string(bytes / size) + name;
  return std::to_string(bytes);
}

}  // namespace lockstep
