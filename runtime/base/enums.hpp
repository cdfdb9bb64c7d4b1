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

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

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

/// An enumeration with names.
template <typename Enum>
concept Named = std::is_enum_v<Enum> && requires(Enum value) {
  { to_string(value) } -> std::convertible_to<const char*>;
};

/// Its name; of a value that a program has cast, the number.
template <Named Enum>
std::string name_of(Enum value) {
  return is_enumerator(value) ? to_string(value) : std::to_string(static_cast<std::int64_t>(value));
}

/// As people write them, in order.
template <Named Enum>
std::vector<std::string> names() {
  std::vector<std::string> all;
  for (int i = 0; i < kCount<Enum>; ++i) all.emplace_back(to_string(static_cast<Enum>(i)));
  return all;
}

/// The one with this name, if any.
template <Named Enum>
constexpr std::optional<Enum> find_enum(std::string_view name) {
  for (int i = 0; i < kCount<Enum>; ++i) {
    if (name == to_string(static_cast<Enum>(i))) return static_cast<Enum>(i);
  }
  return std::nullopt;
}

}  // namespace lockstep
