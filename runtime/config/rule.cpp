// SPDX-License-Identifier: Apache-2.0
#include <concepts>
#include <utility>

#include "runtime/config/value.hpp"

namespace lockstep {
namespace {

template <typename T>
std::string number(T value) {
  if constexpr (std::same_as<T, double>) {
    return yaml::number_text(value);
  } else {
    return concat(value);
  }
}

template <typename T>
std::string noun() {
  return std::same_as<T, double> ? "a number" : "an integer";
}

}  // namespace

template <typename T>
Rule<T> at_least(T low) {
  return {concat(noun<T>(), " >= ", number(low)), [low](const T& value) { return value >= low; }};
}

template <typename T>
Rule<T> above(T low) {
  return {concat(noun<T>(), " > ", number(low)), [low](const T& value) { return value > low; }};
}

template <typename T>
Rule<T> between(T low, T high) {
  return {concat(noun<T>(), " from ", number(low), " to ", number(high)),
          [low, high](const T& value) { return value >= low && value <= high; }};
}

Rule<double> fraction_below_one() {
  return {"a number >= 0 and < 1", [](const double& value) { return value >= 0.0 && value < 1.0; }};
}

Rule<std::string> not_empty() {
  return {"a non-empty string", [](const std::string& text) { return !text.empty(); }};
}

Rule<std::string> one_of(std::vector<std::string> names) {
  const std::string text = (names.size() == 1 ? "" : "one of ") + join(names);
  const auto holds = [names](const std::string& name) {
    for (const std::string& allowed : names) {
      if (name == allowed) return true;
    }
    return false;
  };
  return {text, holds, [names = std::move(names)](const std::string& name) { return did_you_mean(name, names); }};
}

#define LOCKSTEP_NUMBER_RULES(T) \
  template Rule<T> at_least(T);  \
  template Rule<T> above(T);     \
  template Rule<T> between(T, T)

LOCKSTEP_NUMBER_RULES(int);
LOCKSTEP_NUMBER_RULES(std::int64_t);
LOCKSTEP_NUMBER_RULES(std::uint64_t);
LOCKSTEP_NUMBER_RULES(double);
#undef LOCKSTEP_NUMBER_RULES

}  // namespace lockstep
