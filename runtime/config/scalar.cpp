// SPDX-License-Identifier: Apache-2.0
//
// YAML scalars as C++ values, strictly. YAML readers disagree about 010 (8 or 10), 1e3 (text or a number), yes (a truth
// or text): what two readers would read differently is refused here, with the text to write instead.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string_view>
#include <type_traits>

#include "runtime/config/value.hpp"

namespace lockstep::yaml {
namespace {

enum class Shape { integer, number, leading_zeros, other };

std::size_t take_digits(std::string_view& text) {
  const std::size_t count = std::min(text.find_first_not_of("0123456789"), text.size());
  text.remove_prefix(count);
  return count;
}

bool take_any(std::string_view& text, std::string_view characters) {
  if (text.empty() || characters.find(text[0]) == std::string_view::npos) return false;
  text.remove_prefix(1);
  return true;
}

/// What a plain scalar is as a decimal: [sign] digits [. digits] [e [sign] digits]. `number`: with a point or exponent.
Shape shape_of(std::string_view text) {
  take_any(text, "+-");
  const bool zero_first = text.starts_with('0');
  const std::size_t whole = take_digits(text);
  const bool point = take_any(text, ".");
  const std::size_t fraction = point ? take_digits(text) : 0;
  const bool exponent = take_any(text, "eE");
  if (exponent) take_any(text, "+-");
  if (exponent && take_digits(text) == 0) return Shape::other;
  if (whole + fraction == 0 || !text.empty()) return Shape::other;
  if (zero_first && whole > 1) return Shape::leading_zeros;
  return point || exponent ? Shape::number : Shape::integer;
}

std::string without(const std::string& text, char dropped) {
  std::string result = text;
  std::erase(result, dropped);
  return result;
}

bool is_among(const std::string& text, std::initializer_list<std::string_view> words) {
  std::string lower = text;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return std::find(words.begin(), words.end(), lower) != words.end();
}

/// What to write instead of something that other readers would take as a number.
std::string number_advice(const std::string& text) {
  std::string_view digits = text;
  take_any(digits, "+-");
  if (shape_of(text) == Shape::leading_zeros) return "remove the leading zeros (some readers take them as octal)";
  if (shape_of(without(text, '_')) != Shape::other) return "remove the underscores";
  if (digits.starts_with("0x") || digits.starts_with("0o") || digits.starts_with("0b")) return "write it in decimal";
  take_any(digits, ".");
  return is_among(std::string(digits), {"inf", "infinity", "nan"}) ? "it must be finite" : "";
}

template <typename T>
auto read_digits(const std::string& text, T& result) {
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  return std::from_chars(begin, text.data() + text.size(), result).ec;
}

template <typename T>
Conversion to_integer(const Value& value, T& result) {
  const Shape shape = shape_of(value.text);
  if (shape == Shape::number) return {false, "write the digits out, without point or exponent"};
  if (shape != Shape::integer) return {false, number_advice(value.text)};
  if (read_digits(value.text, result) == std::errc()) return {true, ""};
  if (!value.text.starts_with('-')) return {false, concat("the largest is ", std::numeric_limits<T>::max())};
  return {false, std::is_unsigned_v<T> ? "" : concat("the smallest is ", std::numeric_limits<T>::min())};
}

Conversion to_number(const Value& value, double& result) {
  const Shape shape = shape_of(value.text);
  if (shape != Shape::integer && shape != Shape::number) return {false, number_advice(value.text)};
  if (read_digits(value.text, result) == std::errc()) return {true, ""};
  return {false, "a 64-bit floating-point number cannot hold it"};
}

Conversion to_bool(const Value& value, bool& result) {
  result = value.text == "true";
  if (result || value.text == "false") return {true, ""};
  if (is_among(value.text, {"true", "yes", "on", "y", "1"})) return {false, "write true"};
  if (is_among(value.text, {"false", "no", "off", "n", "0"})) return {false, "write false"};
  return {false, ""};
}

}  // namespace

template <typename T>
Conversion convert(const Value& value, T& result) {
  if (value.kind != Value::Kind::scalar) return {false, ""};
  if constexpr (std::same_as<T, std::string>) {
    result = value.text;
    return {true, ""};
  } else {
    if (value.quoted) return {false, "remove the quotes, they make it text"};
    if constexpr (std::same_as<T, bool>)
      return to_bool(value, result);
    else if constexpr (std::same_as<T, double>)
      return to_number(value, result);
    else
      return to_integer(value, result);
  }
}

template <>
std::string type_text<bool>() {
  return "true or false";
}
template <>
std::string type_text<int>() {
  return "an integer";
}
template <>
std::string type_text<std::int64_t>() {
  return "an integer";
}
template <>
std::string type_text<std::uint64_t>() {
  return "an integer >= 0";
}
template <>
std::string type_text<double>() {
  return "a number";
}
template <>
std::string type_text<std::string>() {
  return "a string";
}

template Conversion convert(const Value&, bool&);
template Conversion convert(const Value&, int&);
template Conversion convert(const Value&, std::int64_t&);
template Conversion convert(const Value&, std::uint64_t&);
template Conversion convert(const Value&, double&);
template Conversion convert(const Value&, std::string&);

}  // namespace lockstep::yaml
