// SPDX-License-Identifier: Apache-2.0
//
// {type: tokens}: files of token ids, as tokenizers write them for nanoGPT (train.bin) and others.
//
//   train, eval   a file, a glob(3) pattern or a list of them, in byte order of their paths, one behind the other; a
//                 sample may begin in one and end in the next
//   dtype         uint16 (the default) or uint32, little-endian, of files that do not say. Those that do: NumPy's .npy
//                 ('<u2', '<u4'; all elements, row by row) and those of llm.c (1024 bytes of header)
//   context       tokens per sample; default: the model's
//   stride        from the start of one sample to the next; default: context
//   vocab         every token is below it, else the data is refused; default: the largest one is looked for
//   max_tokens    only the first so many tokens of each split; 0: all
//   documents     {end: ID, packing: stream | whole}: ID is the last token of every document. The token behind it has
//                 nothing to do with it, and is nobody's target (-100, which the losses leave out).
//     stream      samples as without `documents`
//     whole       a sample is as many whole documents, in order, as context + 1 tokens hold; what is left of it is ID,
//                 without targets. A document that is longer is cut every `context` tokens. There is no stride.
//
// Sample i is the context + 1 tokens from i * stride: x int64 [rows, context] is all but the last, targets
// int64 [rows, context] all but the first. Tokens after the last whole sample are not used.
//
// Files are mapped (file_bytes.hpp). Opening looks at all of them once, for their hash and the largest token.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "runtime/data/input_files.hpp"
#include "runtime/data/readers.hpp"
#include "runtime/data/token_stream.hpp"

namespace lockstep {
namespace {

struct TokenOptions {
  std::vector<std::string> train, eval;
  std::string dtype;  ///< empty: not written
  std::int64_t context = 0, stride = 0, vocab = 0, max_tokens = 0;
  std::optional<std::int64_t> end;
  bool whole = false;
};

constexpr std::int64_t kMostTokens = std::int64_t{1} << 32;  // ids that uint32 can hold

void read_documents(const Section& section, TokenOptions& options) {
  if (!section.has("documents")) return;
  const Section documents = section.required_section("documents");
  options.end = documents.get<std::int64_t>(
      "end", between<std::int64_t>(0, (options.vocab > 0 ? options.vocab : kMostTokens) - 1));
  options.whole = documents.get<std::string>("packing", "stream", one_of({"stream", "whole"})) == "whole";
  documents.finish();
  if (options.whole && section.has("stride"))
    throw section.error("stride",
                        "got a stride beside documents.packing: whole, where samples begin with documents; "
                        "leave one of them out");
}

TokenOptions read_options(const Section& section, const DataContext& defaults) {
  TokenOptions options;
  options.train = read_patterns(section, "train");
  if (section.has("eval")) options.eval = read_patterns(section, "eval");
  options.dtype = section.get<std::string>("dtype", "", one_of({"uint16", "uint32"}));
  const auto lengths = between<std::int64_t>(1, 1 << 24);
  if (!section.has("context") && defaults.context == 0)
    throw section.unexpected("context", lengths.text, "; this model has none that could be the default");
  options.context = section.get("context", defaults.context, lengths);
  options.stride = section.get("stride", options.context, at_least<std::int64_t>(1));
  options.vocab = section.get<std::int64_t>("vocab", 0, between<std::int64_t>(1, kMostTokens));
  options.max_tokens = section.get<std::int64_t>("max_tokens", 0, at_least<std::int64_t>(0));
  read_documents(section, options);
  section.finish();
  return options;
}

/// What a file of tokens says of itself; nothing when it is tokens from its first byte on.
struct Header {
  std::string kind;  ///< for messages
  std::string dtype;
  std::size_t begin = 0, tokens = 0;
};

DataError wrong(const std::string& path, const std::string& what) {
  return DataError(concat(path, ": ", what));
}

/// The text behind "'KEY':" of a NumPy header, which is a Python dictionary.
std::string_view numpy_value(std::string_view header, const std::string& key) {
  const std::size_t found = header.find("'" + key + "':");
  if (found == std::string_view::npos) return "";
  header.remove_prefix(found + key.size() + 3);
  return header.substr(std::min(header.find_first_not_of(' '), header.size()));
}

/// Of "(3, 4), ..."; nothing when that is no shape.
std::optional<std::size_t> numpy_elements(std::string_view shape) {
  if (!shape.starts_with('(') || shape.find(')') == std::string_view::npos) return std::nullopt;
  shape = shape.substr(1, shape.find(')') - 1);
  std::size_t elements = 1;
  while (!shape.empty()) {
    std::size_t size = 0;
    const auto [end, error] = std::from_chars(shape.data(), shape.data() + shape.size(), size);
    if (error != std::errc() || __builtin_mul_overflow(elements, size, &elements)) return std::nullopt;
    shape.remove_prefix(static_cast<std::size_t>(end - shape.data()));
    if (!shape.empty() && shape.front() != ',') return std::nullopt;
    shape.remove_prefix(std::min(shape.find_first_not_of(", "), shape.size()));
  }
  return elements;
}

std::optional<Header> numpy_header(const std::string& path, std::string_view bytes) {
  if (!bytes.starts_with("\x93NUMPY")) return std::nullopt;
  const bool is_long = bytes.size() > 6 && bytes[6] > 1;  // the version: how long the length is
  const std::size_t before = is_long ? 12 : 10;
  std::uint32_t length = 0;
  if (bytes.size() >= before) std::memcpy(&length, bytes.data() + 8, is_long ? 4 : 2);
  if (length == 0 || bytes.size() - before < length || (before + length) % 8 != 0)
    throw wrong(path, "got a NumPy file with a damaged header");
  const std::string_view header = bytes.substr(before, length), type = numpy_value(header, "descr");
  Header found{"a NumPy file", "", before + length, 0};
  for (const auto& [descr, dtype] : {std::pair{"'<u2'", "uint16"}, std::pair{"'<u4'", "uint32"}})
    if (type.starts_with(descr)) found.dtype = dtype;
  if (found.dtype.empty())
    throw wrong(path, concat("got a NumPy file of ", type.substr(0, std::min<std::size_t>(type.find(','), 40)),
                             ", expected '<u2' or '<u4'; write it as numpy.uint16 or numpy.uint32"));
  if (!numpy_value(header, "fortran_order").starts_with("False"))
    throw wrong(path, "got a NumPy file in Fortran's order, expected rows; write it with numpy.ascontiguousarray");
  const std::optional<std::size_t> elements = numpy_elements(numpy_value(header, "shape"));
  if (!elements) throw wrong(path, "got a NumPy file with a damaged header");
  found.tokens = *elements;
  return found;
}

std::optional<Header> llmc_header(std::string_view bytes) {
  constexpr std::size_t header_bytes = 1024;
  std::array<std::int32_t, 3> words = {};  // magic, version, tokens
  if (bytes.size() < header_bytes) return std::nullopt;
  std::memcpy(words.data(), bytes.data(), sizeof words);
  const bool gpt2 = words[0] == 20240520 && words[1] == 1, llama3 = words[0] == 20240801 && words[1] == 7;
  if (!gpt2 && !llama3) return std::nullopt;
  return Header{"a file of llm.c", gpt2 ? "uint16" : "uint32", header_bytes,
                static_cast<std::size_t>(std::max(words[2], 0))};
}

/// `most`: tokens; 0: all.
TokenLayout layout_of(const FileBytes& file, const std::string& dtype, std::int64_t most) {
  const std::string_view bytes = file.bytes();
  std::optional<Header> header = numpy_header(file.path(), bytes);
  if (!header) header = llmc_header(bytes);
  if (header && !dtype.empty() && dtype != header->dtype)
    throw wrong(file.path(), concat("is ", header->kind, " of ", header->dtype, ", and data.dtype says ", dtype));
  TokenLayout layout;
  layout.token_bytes = (header ? header->dtype : dtype) == "uint32" ? 4 : 2;
  layout.begin = header ? header->begin : 0;
  const std::size_t there = bytes.size() - layout.begin;
  layout.tokens = header ? header->tokens : there / layout.token_bytes;
  if (there % layout.token_bytes != 0 || layout.tokens != there / layout.token_bytes)
    throw wrong(file.path(),
                header ? concat("is ", header->kind, " of ", header->tokens, " tokens of ", layout.token_bytes,
                                " bytes, and has ", there, " bytes of them; it was cut short, or added to")
                       : concat("has ", there, " bytes, which are no whole number of tokens of ", layout.token_bytes,
                                " bytes; it was cut short, or data.dtype is not its type"));
  if (most > 0) layout.tokens = std::min(layout.tokens, static_cast<std::size_t>(most));
  return layout;
}

/// uint32 that is read as uint16: the upper halves of small numbers.
bool looks_wider(std::string_view bytes) {
  constexpr std::size_t looked_at = 4096;
  bytes = bytes.substr(0, std::min(looked_at, bytes.size() / 4 * 4));
  bool zeros = bytes.size() >= 64, others = false;
  for (std::size_t i = 0; i < bytes.size(); i += 4) {
    zeros &= bytes[i + 2] == 0 && bytes[i + 3] == 0;
    others |= bytes[i] != 0 || bytes[i + 1] != 0;
  }
  return zeros && others;
}

class Split {
 public:
  Split(const Section& section, std::string key, const TokenOptions& options)
      : section_(section), key_(std::move(key)), options_(options), packer_(options.context) {}

  std::shared_ptr<const Dataset> open(const std::vector<std::string>& patterns, std::vector<DataFile>& read,
                                      std::vector<std::string>& notes) {
    const std::vector<std::string> files = files_of(section_, key_, patterns);
    const auto stream = join(files, notes);
    read = stream->records();
    check_vocab(*stream);
    if (options_.end && stream->ends() == 0)
      notes.push_back(one_line(concat("data.", key_, ": no token is ", *options_.end,
                                      ", which documents.end says: ", "this is one document (", names_of(files), ")")));
    TokenCuts cuts = {.context = options_.context, .stride = options_.stride, .end = options_.end};
    cuts.below = options_.vocab > 0 ? options_.vocab : std::max(stream->below(), options_.end.value_or(-1) + 1);
    const std::int64_t have = stream->size();
    if (options_.whole) {
      cuts.ranges = packer_.finish(have);
      if (cuts.ranges.empty())
        throw section_.error(key_, concat("got ", have, " tokens (", names_of(files),
                                          "), expected a document with a token beside documents.end"));
    } else if (have <= options_.context) {
      const bool cut = options_.max_tokens > 0 && have == options_.max_tokens;
      throw section_.error(
          key_, concat("got ", have, " tokens (", names_of(files), "), expected at least ", options_.context + 1,
                       " (context + 1)", cut ? "; max_tokens is too small" : ""));
    }
    return std::make_shared<TokenStreamDataset>(stream, std::move(cuts));
  }

 private:
  std::shared_ptr<const TokenStream> join(const std::vector<std::string>& files, std::vector<std::string>& notes) {
    std::function<void(std::int64_t)> at_end;
    if (options_.whole) at_end = [this](std::int64_t position) { packer_.add(position); };
    const auto stream = std::make_shared<TokenStream>(options_.end, at_end);
    for (const std::string& path : files) {
      const std::int64_t rest = options_.max_tokens - stream->size();
      if (options_.max_tokens > 0 && rest == 0) break;
      FileBytes file(path);
      const TokenLayout layout = layout_of(file, options_.dtype, options_.max_tokens > 0 ? rest : 0);
      if (layout.begin == 0 && options_.dtype.empty() && looks_wider(file.bytes()))
        notes.push_back(one_line(concat(path, ": every second token is 0: write dtype: uint32 if that is its type, ",
                                        "dtype: uint16 if it is not")));
      file.shorten(layout.begin + layout.tokens * layout.token_bytes);
      stream->add(std::move(file), layout);
    }
    return stream;
  }

  void check_vocab(const TokenStream& stream) const {
    if (options_.vocab == 0 || stream.below() <= options_.vocab) return;
    const std::int64_t at = stream.first_not_below(options_.vocab);
    std::int64_t token = 0;
    stream.copy(at, 1, &token);
    throw DataError(concat(stream.place_of(at), ": got ", token, ", expected less than data.vocab (", options_.vocab,
                           "); the file is of another tokenizer, or data.dtype is not its type"));
  }

  const Section& section_;
  std::string key_;
  const TokenOptions& options_;
  DocumentPacker packer_;
};

DataSplits open_tokens(const Section& section, const DataContext& defaults) {
  TokenOptions options = read_options(section, defaults);
  if (defaults.trained && defaults.trained->inputs) options.eval = {defaults.trained->inputs->path};
  const bool absent = defaults.trained && !options.eval.empty();
  DataSplits splits;
  DataRecord& record = splits.record.emplace();
  if (!absent) splits.train = Split(section, "train", options).open(options.train, record.train, splits.notes);
  if (!options.eval.empty())
    splits.eval = Split(section, "eval", options).open(options.eval, record.eval, splits.notes);
  return splits;
}

}  // namespace

DataReader tokens_reader() {
  return {"tokens", "files of token ids (nanoGPT's, NumPy's); targets are the next ones", open_tokens,
          /*takes_inputs=*/true};
}

}  // namespace lockstep
