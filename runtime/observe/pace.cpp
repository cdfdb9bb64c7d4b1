// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/pace.hpp"

#include <cmath>
#include <iterator>
#include <sstream>

#include "runtime/base/error.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {
namespace {

/// Three digits, and the prefix of the unit.
struct Scaled {
  std::string digits;
  const char* prefix;
};

Scaled scaled(double number) {
  static const char* const prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  std::size_t prefix = 0;
  for (; number >= 999.5 && std::isfinite(number) && prefix + 1 < std::size(prefixes); ++prefix) number /= 1000;
  if (number >= 0.9995 && number < 1000)
    return {fixed_text(number, number < 10 ? 2 : number < 100 ? 1 : 0), prefixes[prefix]};
  std::ostringstream digits;
  digits.precision(3);
  digits << number;
  return {digits.str(), prefixes[prefix]};
}

}  // namespace

void Pace::add(const StepResult& step) {
  samples += step.samples;
  operations += step.operations();
  product_rate = step.product_rate();
  us += step.elapsed_us;
}

double Pace::samples_per_s() const {
  return static_cast<double>(samples) / us * 1e6;
}

std::optional<double> Pace::tokens_per_s() const {
  if (tokens_per_sample == 0) return std::nullopt;
  return samples_per_s() * static_cast<double>(tokens_per_sample);
}

std::optional<double> Pace::operations_per_s() const {
  if (operations == 0) return std::nullopt;
  return operations / us * 1e6;
}

std::optional<double> Pace::product_share() const {
  if (operations == 0 || product_rate == 0) return std::nullopt;
  return *operations_per_s() / product_rate;
}

std::string rate_text(const Pace& pace) {
  const std::optional<double> tokens = pace.tokens_per_s();
  const auto [digits, prefix] = scaled(tokens.value_or(pace.samples_per_s()));
  return concat(digits, prefix, tokens ? " tokens/s" : " samples/s");
}

std::string work_text(const Pace& pace) {
  const std::optional<double> operations = pace.operations_per_s(), share = pace.product_share();
  if (!operations) return "";
  const auto [digits, prefix] = scaled(*operations);
  return concat(digits, " ", prefix, "FLOP/s", share ? concat(" (", fixed_text(*share * 100, 0), " %)") : "");
}

}  // namespace lockstep
