// SPDX-License-Identifier: Apache-2.0
//
// Files of numbers as one stream of tokens, and samples that are pieces of it. Private to this folder.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/data/file_bytes.hpp"

namespace lockstep {

/// What a file of tokens says of itself.
struct TokenLayout {
  std::size_t token_bytes = 2;  ///< 1, 2 or 4: little-endian, without a sign
  std::size_t begin = 0;        ///< bytes before the first token, a multiple of 8
  std::size_t tokens = 0;
};

/// Token by token as they lie in the files, one file behind the other. Nothing is copied (file_bytes.hpp).
class TokenStream {
 public:
  /// `end`: counted, and shown to `at_end`: the positions behind every such token, in order.
  explicit TokenStream(std::optional<std::int64_t> end = {}, std::function<void(std::int64_t)> at_end = {})
      : end_(end), at_end_(std::move(at_end)) {}

  /// Looks at all bytes of the file once, for its record and the largest token.
  void add(FileBytes file, const TokenLayout& layout);

  std::int64_t size() const { return size_; }    ///< tokens
  std::int64_t below() const { return below_; }  ///< every token is; 0 without any
  std::int64_t ends() const { return ends_; }
  const std::vector<DataFile>& records() const { return records_; }
  bool is_in_memory() const { return files_.stay(); }
  /// Tokens [begin, begin + count), which are there. Thread: any.
  void copy(std::int64_t begin, std::int64_t count, std::int64_t* to) const;
  /// "train.bin: token 17"
  std::string place_of(std::int64_t token) const;
  /// The first token >= `below`; -1: there is none.
  std::int64_t first_not_below(std::int64_t below) const;

 private:
  struct Chunk {
    std::size_t first_byte = 0, token_bytes = 0;
    std::int64_t begin = 0;  ///< of its first token in the stream
    std::int64_t count = 0;
  };
  std::size_t chunk_of(std::int64_t token) const;
  std::string_view bytes_of(std::size_t chunk) const;

  std::optional<std::int64_t> end_;
  std::function<void(std::int64_t)> at_end_;
  OpenFiles files_;
  std::vector<Chunk> chunks_;  ///< by file
  std::vector<DataFile> records_;
  std::int64_t size_ = 0, below_ = 0, ends_ = 0;
};

/// Tokens [begin, begin + count) of a stream, two or more.
struct TokenRange {
  std::int64_t begin = 0, count = 0;
};

/// How a stream is cut into samples.
struct TokenCuts {
  std::int64_t context = 0, stride = 0;
  /// The last token of a document. The token behind it is nobody's target: -100, which the losses leave out.
  std::optional<std::int64_t> end = {};
  /// The samples; empty: sample i is the context + 1 tokens from i * stride. A range of fewer is filled with `end`,
  /// and its targets with -100.
  std::vector<TokenRange> ranges = {};
  std::int64_t below = 0;  ///< as EntrySpec::below
  bool has_places = true;
};

/// x int64 [rows, context]: all tokens of a sample but the last; targets int64 [rows, context]: all but the first.
class TokenStreamDataset : public Dataset {
 public:
  /// With at least one sample.
  TokenStreamDataset(std::shared_ptr<const TokenStream> stream, TokenCuts cuts);
  std::vector<EntrySpec> entries(std::int64_t rows) const override;
  std::int64_t size() const override;
  Tensors read(const std::vector<std::int64_t>& samples) const override;
  bool reads_in_parallel() const override { return true; }
  bool is_in_memory() const override { return stream_->is_in_memory(); }
  std::string place_of(std::int64_t sample) const override;

 private:
  TokenRange range(std::int64_t sample) const;

  std::shared_ptr<const TokenStream> stream_;
  TokenCuts cuts_;
};

/// Packs documents into samples of up to context + 1 tokens, in order: as many whole ones as fit; one that is longer is
/// cut every `context` tokens. Samples without a target are left out.
class DocumentPacker {
 public:
  explicit DocumentPacker(std::int64_t context) : most_(context + 1) {}
  /// A document ends before `position`.
  void add(std::int64_t position);
  /// At the end of the stream, which ends a document too.
  std::vector<TokenRange> finish(std::int64_t size);

 private:
  void put_out();

  std::int64_t most_, start_ = 0, fit_ = 0, documents_ = 0;
  std::vector<TokenRange> ranges_;
};

}  // namespace lockstep
