// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/iso_date.hpp"

#include <chrono>

namespace lockstep {
namespace {

/// Reads a number of exactly `digits` digits off the front.
std::optional<int> take_digits(std::string_view& text, std::size_t digits) {
  int number = 0;
  if (text.size() < digits) return std::nullopt;
  for (std::size_t i = 0; i < digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    number = 10 * number + (text[i] - '0');
  }
  text.remove_prefix(digits);
  return number;
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

/// "12:30", "12:30:15", "12:30:15.25", and the zone behind it, in seconds.
std::optional<double> take_time(std::string_view& text) {
  const auto hour = take_digits(text, 2);
  if (!hour || *hour > 24 || !take(text, ':')) return std::nullopt;
  const auto minute = take_digits(text, 2);
  if (!minute || *minute > 59) return std::nullopt;
  double seconds = 3600.0 * *hour + 60.0 * *minute;
  if (take(text, ':')) {
    const auto second = take_digits(text, 2);
    if (!second || *second > 60) return std::nullopt;
    seconds += *second;
    if (take(text, '.')) {
      double unit = 0.1;
      if (text.empty()) return std::nullopt;
      for (; !text.empty() && text[0] >= '0' && text[0] <= '9'; unit /= 10) {
        seconds += unit * (text[0] - '0');
        text.remove_prefix(1);
      }
    }
  }
  if (text.empty() || text == "Z") return text = {}, seconds;
  const bool east = text[0] == '+';
  if (!east && text[0] != '-') return std::nullopt;
  text.remove_prefix(1);
  const auto hours = take_digits(text, 2);
  take(text, ':');
  const auto minutes = text.empty() ? std::optional(0) : take_digits(text, 2);
  if (!hours || !minutes) return std::nullopt;
  const double zone = 3600.0 * *hours + 60.0 * *minutes;
  return seconds - (east ? zone : -zone);
}

}  // namespace

std::optional<double> iso_days(std::string_view text) {
  const auto year = take_digits(text, 4);
  if (!year || !take(text, '-')) return std::nullopt;
  const auto month = take_digits(text, 2);
  if (!month || !take(text, '-')) return std::nullopt;
  const auto day = take_digits(text, 2);
  if (!day) return std::nullopt;
  const std::chrono::year_month_day date(std::chrono::year(*year), std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day)));
  if (!date.ok()) return std::nullopt;
  double seconds = 0;
  if (!text.empty()) {
    if (!take(text, 'T') && !take(text, ' ')) return std::nullopt;
    const auto time = take_time(text);
    if (!time || !text.empty()) return std::nullopt;
    seconds = *time;
  }
  constexpr double seconds_of_day = 86400;
  return std::chrono::sys_days(date).time_since_epoch().count() + seconds / seconds_of_day;
}

}  // namespace lockstep
