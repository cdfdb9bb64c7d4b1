// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/masked_tokens.hpp"

#include <ATen/ops/full_like.h>

#include <algorithm>

#include "runtime/data/random_stream.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {
namespace {

constexpr std::int64_t kIgnored = -100;  // of the losses: docs/numerics.md

class MaskedTokens : public Dataset {
 public:
  MaskedTokens(std::shared_ptr<const Dataset> data, Masking masking, std::uint64_t seed)
      : data_(std::move(data)), masking_(std::move(masking)), seed_(seed) {}

  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    std::vector<EntrySpec> entries = data_->entries(rows);
    EntrySpec targets = entries.front();
    if (targets.below > 0) entries.front().below = std::max(targets.below, masking_.token + 1);
    targets.name = entries.back().name;
    entries.back() = targets;
    return entries;
  }
  std::int64_t size() const override { return data_->size(); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    return masked(data_->read(samples), [&](std::size_t row) {
      return mix_seed(seed_, static_cast<std::uint64_t>(samples[row]), 1, "masked tokens");
    });
  }
  Tensors draw(const std::vector<std::int64_t>& samples, std::int64_t first) const override {
    return masked(data_->draw(samples, first), [&](std::size_t row) {
      return mix_seed(seed_, static_cast<std::uint64_t>(first) + row, 0, "masked tokens");
    });
  }
  bool reads_in_parallel() const override { return data_->reads_in_parallel(); }
  bool is_in_memory() const override { return data_->is_in_memory(); }
  std::string place_of(std::int64_t sample) const override { return data_->place_of(sample); }

 private:
  template <typename Key>
  Tensors masked(Tensors entries, const Key& key_of_row) const {
    const at::Tensor tokens = entries.front().clone();
    const at::Tensor targets = at::full_like(tokens, kIgnored);
    const std::int64_t rows = tokens.size(0), length = tokens.size(1);
    auto* token = tokens.mutable_data_ptr<std::int64_t>();
    auto* target = targets.mutable_data_ptr<std::int64_t>();
    for (std::int64_t row = 0; row < rows; ++row) {
      RandomStream random(key_of_row(static_cast<std::size_t>(row)));
      for (std::int64_t i = 0; i < length; ++i, ++token, ++target) {
        const double guessed = random.uniform(), how = random.uniform();  // two of each token, whatever comes of it
        if (guessed >= masking_.probability || is_spared(*token)) continue;
        *target = *token;
        if (how < masking_.random)
          *token = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(masking_.vocab)));
        else if (how >= masking_.random + masking_.kept)
          *token = masking_.token;
      }
    }
    entries.front() = tokens;
    entries.back() = targets;
    return entries;
  }

  bool is_spared(std::int64_t token) const {
    return std::find(masking_.never.begin(), masking_.never.end(), token) != masking_.never.end();
  }

  std::shared_ptr<const Dataset> data_;
  Masking masking_;
  std::uint64_t seed_;
};

}  // namespace

std::shared_ptr<const Dataset> masked_tokens(std::shared_ptr<const Dataset> data, const Masking& masking,
                                             std::uint64_t seed) {
  const EntrySpec x = data->entries(1).front();
  if (x.dtype != at::kLong || x.sizes.size() != 2)
    throw DataError(concat("data.masking is for int64 tokens [rows, length]; this data has ", to_string(x)));
  return std::make_shared<MaskedTokens>(std::move(data), masking, seed);
}

}  // namespace lockstep
