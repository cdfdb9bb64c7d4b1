// SPDX-License-Identifier: Apache-2.0
//
// Enumerations that know how many they are. Each counts 0, 1, 2, ... and has its names beside it:
//
//   enum class Mode : std::uint8_t { train, evaluate };
//   constexpr const char* to_string(Mode mode) {
//     switch (mode) {
//       case Mode::train: return "train";
//       case Mode::evaluate: return "evaluate";
//     }
//     return nullptr;
//   }
//
// A new enumerator does not compile until it has a name there (-Wswitch-enum), and the rest follows from the names.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace lockstep {

template <typename Enum>
constexpr int count_names() {
  int count = 0;
  while (to_string(static_cast<Enum>(count)) != nullptr) ++count;
  return count;
}

template <typename Enum>
inline constexpr int kCount = count_names<Enum>();

/// Whether a value that came from outside is one of the enumeration's.
template <typename Enum>
constexpr bool is_enumerator(Enum value) {
  return static_cast<std::uint64_t>(value) < static_cast<std::uint64_t>(kCount<Enum>);
}

/// The one with this name, if any.
template <typename Enum>
constexpr std::optional<Enum> find_enum(std::string_view name) {
  for (int i = 0; i < kCount<Enum>; ++i) {
    if (name == to_string(static_cast<Enum>(i))) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

}  // namespace lockstep
