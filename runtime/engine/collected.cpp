// SPDX-License-Identifier: Apache-2.0
#include "runtime/engine/collected.hpp"

#include <ATen/ATen.h>

#include <utility>

#include "runtime/device/staging.hpp"

namespace lockstep {
namespace {

/// Of each entry its numbers, then its tensors.
class Entries {
 public:
  void add(std::initializer_list<std::int64_t> numbers, const Tensors& tensors) {
    numbers_.insert(numbers_.end(), numbers);
    numbers_.push_back(static_cast<std::int64_t>(tensors.size()));
    tensors_.insert(tensors_.end(), tensors.begin(), tensors.end());
  }
  Tensors message() && {
    tensors_.insert(tensors_.begin(), at::tensor(numbers_, at::kLong));
    return std::move(tensors_);
  }

 private:
  std::vector<std::int64_t> numbers_;
  Tensors tensors_;
};

constexpr std::int64_t kStatistics = -1;  // in place of a state's buffer

}  // namespace

void Collected::add(int layer, int micro_batch, LayerContext& context) {
  const auto at = static_cast<std::size_t>(layer);
  if (!context.collected().empty()) statistics_[at].try_emplace(micro_batch, std::move(context.collected()));
  if (!context.new_states().empty()) states_[at].try_emplace(micro_batch, std::move(context.new_states()));
}

Tensors Collected::message() const {
  Entries entries;
  for (std::size_t layer = 0; layer < statistics_.size(); ++layer) {
    const auto at = static_cast<std::int64_t>(layer);
    for (const auto& [micro_batch, tensors] : statistics_[layer]) entries.add({at, micro_batch, kStatistics}, tensors);
    for (const auto& [micro_batch, states] : states_[layer])
      for (const auto& [buffer, state] : states) entries.add({at, micro_batch, buffer}, {state});
  }
  return std::move(entries).message();
}

void Collected::put(const Tensors& message) {
  const at::Tensor numbers = message.at(0).to(at::kCPU);
  const auto* entry = numbers.const_data_ptr<std::int64_t>();
  std::size_t next = 1;
  for (std::int64_t i = 0; i < numbers.numel(); i += 4, entry += 4) {
    const auto layer = static_cast<std::size_t>(entry[0]);
    const int micro_batch = static_cast<int>(entry[1]);
    Tensors tensors;
    for (std::int64_t n = 0; n < entry[3]; ++n) tensors.push_back(to_device(message.at(next++), device_));
    if (entry[2] == kStatistics)
      statistics_[layer][micro_batch] = std::move(tensors);
    else
      states_[layer][micro_batch][static_cast<int>(entry[2])] = std::move(tensors.at(0));
  }
}

void Collected::clear() {
  for (auto& of_layer : statistics_) of_layer.clear();
  for (auto& of_layer : states_) of_layer.clear();
}

std::vector<Tensors> Collected::take_statistics(int layer) {
  std::vector<Tensors> in_order;
  for (auto& [micro_batch, tensors] : std::exchange(statistics_[static_cast<std::size_t>(layer)], {}))
    in_order.push_back(tensors);
  return in_order;
}

std::map<int, Collected::States> Collected::take_states(int layer) {
  return std::exchange(states_[static_cast<std::size_t>(layer)], {});
}

}  // namespace lockstep
