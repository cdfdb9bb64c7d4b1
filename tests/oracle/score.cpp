// SPDX-License-Identifier: Apache-2.0
//
// score loss|metric KIND DATA CUTS: a loss or a metric of the tensors `output` and `targets` of DATA, safetensors, for
// scores_test.py. KIND: YAML, "huber" or "{type: huber, delta: 2}"; CUTS: where the samples are cut into micro-batches,
// "3,7" or "". Prints JSON: value, denominator and gradient of the loss; value and picture of the metric.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <exception>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "runtime/config/section.hpp"
#include "runtime/training/losses.hpp"
#include "runtime/training/metric_kinds.hpp"
#include "tests/oracle/tensor_file.hpp"

namespace lockstep {
namespace {

std::vector<std::int64_t> cuts_in(const std::string& text, std::int64_t rows) {
  std::vector<std::int64_t> cuts = {0};
  std::stringstream words(text);
  for (std::string word; std::getline(words, word, ',');) cuts.push_back(std::stoll(word));
  cuts.push_back(rows);
  return cuts;
}

/// JSON has no NaN.
std::string number(double value) {
  std::ostringstream text;
  text << std::setprecision(17) << value;
  return std::isfinite(value) ? text.str() : "null";
}

template <typename Numbers>
std::string list(const Numbers& values) {
  std::string text;
  for (const double value : values) text += (text.empty() ? "" : ", ") + number(value);
  return "[" + text + "]";
}

EntrySpec spec_of(const char* name, const at::Tensor& tensor) {
  return {name, tensor.scalar_type(), tensor.sizes().vec()};
}

template <typename Kind>
auto made(const Table<Kind>& kinds, const Section& kind) {
  const Section options = kind.without({"type"});
  auto result = kinds.get(kind.get<std::string>("type")).make(options);
  options.finish();
  return result;
}

void print_loss(const Section& kind, const at::Tensor& output, const at::Tensor& targets,
                const std::vector<std::int64_t>& cuts) {
  const auto loss = made(loss_kinds(), kind);
  loss->check(spec_of("x", output), spec_of("targets", targets));
  std::vector<double> gradient;
  double value = 0;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const at::Tensor part = output.slice(0, cuts[i], cuts[i + 1]).clone().requires_grad_();
    const at::Tensor numerator = loss->numerator(part, targets.slice(0, cuts[i], cuts[i + 1]));
    numerator.backward();
    value += numerator.item<double>();
    const at::Tensor flat = part.grad().to(at::kDouble).contiguous();
    gradient.insert(gradient.end(), flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
  }
  std::cout << "{\"numerator\": " << number(value) << ", \"denominator\": " << number(loss->denominator(targets))
            << ", \"gradient\": " << list(gradient) << "}" << std::endl;
}

void print_metric(const Section& kind, const at::Tensor& output, const at::Tensor& targets,
                  const std::vector<std::int64_t>& cuts) {
  const auto metric = made(metric_kinds(), kind);
  metric->check(spec_of("x", output), spec_of("targets", targets));
  std::vector<double> all;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const at::Tensor state =
        metric->state(output.slice(0, cuts[i], cuts[i + 1]), targets.slice(0, cuts[i], cuts[i + 1])).contiguous();
    metric->merge(all, {state.const_data_ptr<double>(), static_cast<std::size_t>(state.numel())});
  }
  std::cout << "{\"name\": \"" << metric->name() << "\", \"value\": " << number(metric->value(all))
            << ", \"picture\": " << list(metric->picture(all)) << "}" << std::endl;
}

}  // namespace
}  // namespace lockstep

int main(int count, char** arguments) {
  using namespace lockstep;
  try {
    if (count != 5) throw UserError("score loss|metric KIND DATA CUTS");
    at::set_num_threads(1);
    const Section kind = load_config_text(concat("kind: ", arguments[2]), "KIND").named("kind");
    const SafetensorsFile file(arguments[3]);
    const at::Tensor output = read(file, "output"), targets = read(file, "targets");
    const bool is_loss = std::string(arguments[1]) == "loss";
    (is_loss ? print_loss : print_metric)(kind, output, targets, cuts_in(arguments[4], output.size(0)));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
