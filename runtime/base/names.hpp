// SPDX-License-Identifier: Apache-2.0
//
// Enums with names, as users write them. The table stands beside the enum, in the order of its values from 0 on, and
// serves reading, writing, lists and messages:
//
//   enum class Bind { none, cores };
//   template <> inline constexpr auto kNames<Bind> = std::array{"none", "cores"};
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace lockstep {

template <typename E>
inline constexpr auto kNames = std::array<const char*, 0>{};

template <typename E>
concept Named = std::is_enum_v<E> &&(kNames<E>.size() > 0);

template <Named E>
std::vector<std::string> names() {
  return {kNames<E>.begin(), kNames<E>.end()};
}

/// A value that the enum has not is written as its number, which no name is.
template <Named E>
std::string to_string(E value) {
  const auto index = static_cast<std::size_t>(value);
  return index < kNames<E>.size() ? std::string(kNames<E>[index]) : std::to_string(static_cast<int>(value));
}

template <Named E>
std::optional<E> value_of(const std::string& name) {
  const auto found = std::find(kNames<E>.begin(), kNames<E>.end(), name);
  if (found == kNames<E>.end()) return std::nullopt;
  return static_cast<E>(found - kNames<E>.begin());
}

}  // namespace lockstep
