// SPDX-License-Identifier: Apache-2.0
#include "runtime/data/token_stream.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "runtime/base/check.hpp"
#include "runtime/data/table_dataset.hpp"
#include "runtime/layer/loss.hpp"

namespace lockstep {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

template <typename T>
T token_at(const char* tokens, std::size_t index) {
  T token;
  std::memcpy(&token, tokens + index * sizeof(T), sizeof(T));
  return token;
}

/// f(T()) with the type of such tokens.
template <typename F>
auto by_width(std::size_t token_bytes, const F& f) {
  if (token_bytes == 1) return f(std::uint8_t());
  if (token_bytes == 2) return f(std::uint16_t());
  LOCKSTEP_CHECK(token_bytes == 4, token_bytes, " bytes");
  return f(std::uint32_t());
}

std::int64_t largest(std::string_view bytes, std::size_t token_bytes) {
  return by_width(token_bytes, [&](auto zero) {
    auto most = zero;
    for (std::size_t i = 0; i < bytes.size() / token_bytes; ++i)
      most = std::max(most, token_at<decltype(zero)>(bytes.data(), i));
    return static_cast<std::int64_t>(most);
  });
}

/// The first token from `from` on that `wanted` holds for; as many as there are: none.
template <typename Wanted>
std::size_t find_token(std::string_view bytes, std::size_t token_bytes, std::size_t from, const Wanted& wanted) {
  return by_width(token_bytes, [&](auto zero) {
    const std::size_t count = bytes.size() / token_bytes;
    for (std::size_t i = from; i < count; ++i)
      if (wanted(static_cast<std::int64_t>(token_at<decltype(zero)>(bytes.data(), i)))) return i;
    return count;
  });
}

}  // namespace

void TokenStream::add(FileBytes file, const TokenLayout& layout) {
  const std::size_t end = layout.begin + layout.tokens * layout.token_bytes;
  LOCKSTEP_CHECK(layout.begin % 8 == 0 && end <= file.bytes().size(), layout.begin, " to ", end);
  std::size_t place = 0;
  std::int64_t seen = size_;
  records_.push_back(file.record([&](std::string_view piece) {
    const std::size_t first = std::clamp(layout.begin, place, place + piece.size()) - place;
    const std::size_t last = std::clamp(end, place, place + piece.size()) - place;
    place += piece.size();
    if (first >= last) return;
    const std::string_view tokens = piece.substr(first, last - first);
    below_ = std::max(below_, largest(tokens, layout.token_bytes) + 1);
    const auto is_end = [&](std::int64_t token) { return token == *end_; };
    const std::size_t count = tokens.size() / layout.token_bytes;
    for (std::size_t i = 0; end_; ++i) {
      i = find_token(tokens, layout.token_bytes, i, is_end);
      if (i == count) break;
      ++ends_;
      if (at_end_) at_end_(seen + static_cast<std::int64_t>(i) + 1);
    }
    seen += static_cast<std::int64_t>(count);
  }));
  files_.add(std::move(file));
  chunks_.push_back({layout.begin, layout.token_bytes, size_, static_cast<std::int64_t>(layout.tokens)});
  size_ += static_cast<std::int64_t>(layout.tokens);
}

std::size_t TokenStream::chunk_of(std::int64_t token) const {
  const auto behind = std::upper_bound(chunks_.begin(), chunks_.end(), token,
                                       [](std::int64_t at, const Chunk& chunk) { return at < chunk.begin; });
  return static_cast<std::size_t>(behind - chunks_.begin()) - 1;
}

std::string_view TokenStream::bytes_of(std::size_t chunk) const {
  const Chunk& of = chunks_[chunk];
  return files_[chunk].bytes().substr(of.first_byte, static_cast<std::size_t>(of.count) * of.token_bytes);
}

void TokenStream::copy(std::int64_t begin, std::int64_t count, std::int64_t* to) const {
  LOCKSTEP_CHECK(begin >= 0 && count >= 0 && begin + count <= size_, begin, " + ", count, " of ", size_);
  for (std::size_t i = count > 0 ? chunk_of(begin) : 0; count > 0; ++i) {
    const Chunk& chunk = chunks_[i];
    const auto here = static_cast<std::size_t>(std::min(count, chunk.begin + chunk.count - begin));
    const char* tokens = bytes_of(i).data() + static_cast<std::size_t>(begin - chunk.begin) * chunk.token_bytes;
    by_width(chunk.token_bytes, [&](auto zero) {
      for (std::size_t j = 0; j < here; ++j) to[j] = static_cast<std::int64_t>(token_at<decltype(zero)>(tokens, j));
    });
    files_.seen(here * chunk.token_bytes);
    to += here;
    begin += static_cast<std::int64_t>(here);
    count -= static_cast<std::int64_t>(here);
  }
}

std::string TokenStream::place_of(std::int64_t token) const {
  const std::size_t chunk = chunk_of(token);
  return concat(files_[chunk].path(), ": token ", token - chunks_[chunk].begin);
}

std::int64_t TokenStream::first_not_below(std::int64_t below) const {
  const auto wrong = [&](std::int64_t token) { return token >= below; };
  for (std::size_t i = 0; i < chunks_.size(); ++i) {
    const std::size_t found = find_token(bytes_of(i), chunks_[i].token_bytes, 0, wrong);
    if (const auto at = static_cast<std::int64_t>(found); at < chunks_[i].count) return chunks_[i].begin + at;
  }
  return -1;
}

TokenStreamDataset::TokenStreamDataset(std::shared_ptr<const TokenStream> stream, TokenCuts cuts)
    : stream_(std::move(stream)), cuts_(std::move(cuts)) {
  LOCKSTEP_CHECK(size() >= 1, stream_->size(), " tokens");
}

std::vector<EntrySpec> TokenStreamDataset::entries(std::int64_t rows) const {
  const DataEntry tokens = {at::kLong, {cuts_.context}, cuts_.below};
  return data_entries(rows, tokens, tokens);
}

std::int64_t TokenStreamDataset::size() const {
  if (!cuts_.ranges.empty()) return static_cast<std::int64_t>(cuts_.ranges.size());
  return (stream_->size() - cuts_.context - 1) / cuts_.stride + 1;
}

TokenRange TokenStreamDataset::range(std::int64_t sample) const {
  LOCKSTEP_CHECK(sample >= 0 && sample < size(), "sample ", sample, " of ", size());
  if (cuts_.ranges.empty()) return {sample * cuts_.stride, cuts_.context + 1};
  return cuts_.ranges[static_cast<std::size_t>(sample)];
}

Tensors TokenStreamDataset::read(const std::vector<std::int64_t>& samples) const {
  const auto rows = static_cast<std::int64_t>(samples.size());
  Tensors result = {at::empty({rows, cuts_.context}, at::kLong), at::empty({rows, cuts_.context}, at::kLong)};
  auto* x = result[0].mutable_data_ptr<std::int64_t>();
  auto* targets = result[1].mutable_data_ptr<std::int64_t>();
  for (const std::int64_t sample : samples) {
    const TokenRange of = range(sample);
    stream_->copy(of.begin, of.count - 1, x);
    std::copy(x + 1, x + of.count - 1, targets);
    stream_->copy(of.begin + of.count - 1, 1, targets + of.count - 2);
    if (cuts_.end) {
      for (std::int64_t i = 0; i < of.count - 1; ++i)
        if (x[i] == *cuts_.end) targets[i] = kIgnoredTarget;
      std::fill(x + of.count - 1, x + cuts_.context, *cuts_.end);
      std::fill(targets + of.count - 1, targets + cuts_.context, kIgnoredTarget);
    }
    x += cuts_.context;
    targets += cuts_.context;
  }
  return result;
}

std::string TokenStreamDataset::place_of(std::int64_t sample) const {
  return cuts_.has_places ? stream_->place_of(range(sample).begin) : "";
}

void DocumentPacker::put_out() {
  // The first token of every document but the first one is nobody's target.
  if (fit_ - start_ > documents_) ranges_.push_back({start_, fit_ - start_});
  start_ = fit_;
  documents_ = 0;
}

void DocumentPacker::add(std::int64_t position) {
  while (position - start_ > most_) {
    if (fit_ == start_) {
      ranges_.push_back({start_, most_});
      start_ = fit_ = start_ + most_ - 1;
    } else {
      put_out();
    }
  }
  fit_ = position;
  ++documents_;
}

std::vector<TokenRange> DocumentPacker::finish(std::int64_t size) {
  if (size > fit_) add(size);
  if (fit_ > start_) put_out();
  return std::move(ranges_);
}

}  // namespace lockstep
