// SPDX-License-Identifier: Apache-2.0
//
// {type: text}: bytes as tokens, for language models.
//
//   train, eval   a glob(3) pattern or a list of them. The files that match, each once, in byte order of their paths,
//                 are joined as they are: nothing is put between two files, so the vocabulary is the 256 byte values
//                 and a split is what `cat` prints. Large ones are mapped, not read. Folders that match are passed
//                 over. Relative patterns start at the working folder; `~` and `${X}` are ordinary characters, for no
//                 shell sees them. A name that exists is no pattern. A file that is no text (compressed, UTF-16) is
//                 taken, with a note.
//   context       tokens per sample; default: the model's
//   stride        from the start of one sample to the next; default: context
//   max_bytes     only the first so many bytes of each split; 0: all
//
// Sample i is the context + 1 bytes from i * stride: x int64 [rows, context] is all but the last, targets
// int64 [rows, context] all but the first. Bytes after the last whole sample are not used.
#include "runtime/data/input_files.hpp"
#include "runtime/data/readers.hpp"
#include "runtime/data/token_stream.hpp"

namespace lockstep {
namespace {

struct TextOptions {
  std::vector<std::string> train, eval;
  std::int64_t context = 0, stride = 0, max_bytes = 0;
};

TextOptions read_options(const Section& section, const DataContext& defaults) {
  TextOptions options;
  options.train = read_patterns(section, "train");
  if (section.has("eval")) options.eval = read_patterns(section, "eval");
  const auto positive = at_least<std::int64_t>(1);
  if (!section.has("context") && defaults.context == 0) {
    throw section.unexpected("context", positive.text, "; this model has none that could be the default");
  }
  options.context = section.get("context", defaults.context, positive);
  options.stride = section.get("stride", options.context, positive);
  options.max_bytes = section.get<std::int64_t>("max_bytes", 0, at_least<std::int64_t>(0));
  section.finish();
  return options;
}

/// `note`: of the first file that is no text.
std::shared_ptr<const TokenStream> joined(const std::vector<std::string>& files, std::int64_t max_bytes,
                                          std::string& note) {
  constexpr std::size_t looked_at = 1 << 16;
  const auto stream = std::make_shared<TokenStream>();
  for (const std::string& path : files) {
    const std::int64_t rest = max_bytes - stream->size();
    if (max_bytes > 0 && rest == 0) break;
    FileBytes file(path, max_bytes > 0 ? rest : 0);
    const std::string_view bytes = file.bytes();
    if (const std::string format = foreign_format(bytes.substr(0, looked_at)); note.empty() && !format.empty())
      note = concat(path, ": ", format, "; its bytes are the tokens, as they are");
    const TokenLayout layout = {.token_bytes = 1, .tokens = bytes.size()};
    stream->add(std::move(file), layout);
  }
  return stream;
}

std::shared_ptr<const Dataset> open_split(const Section& section, const std::string& key,
                                          const std::vector<std::string>& patterns, const TextOptions& options,
                                          std::vector<DataFile>& read, std::vector<std::string>& notes) {
  const std::vector<std::string> files = files_of(section, key, patterns);
  std::string note;
  const auto stream = joined(files, options.max_bytes, note);
  read = stream->records();
  if (!note.empty()) notes.push_back(one_line(note));
  const std::int64_t have = stream->size();
  if (have <= options.context)
    throw section.error(key,
                        concat("got ", have, " bytes (", names_of(files), "), expected at least ",
                               static_cast<std::uint64_t>(options.context) + 1, " (context + 1)",
                               options.max_bytes > 0 && have == options.max_bytes ? "; max_bytes is too small" : ""));
  return std::make_shared<TokenStreamDataset>(
      stream,
      TokenCuts{.context = options.context, .stride = options.stride, .below = stream->below(), .has_places = false});
}

DataSplits open_text(const Section& section, const DataContext& defaults) {
  TextOptions options = read_options(section, defaults);
  if (defaults.trained && defaults.trained->inputs) options.eval = {defaults.trained->inputs->path};
  const bool absent = defaults.trained && !options.eval.empty();
  DataSplits splits;
  DataRecord& record = splits.record.emplace();
  if (!absent) splits.train = open_split(section, "train", options.train, options, record.train, splits.notes);
  if (!options.eval.empty())
    splits.eval = open_split(section, "eval", options.eval, options, record.eval, splits.notes);
  return splits;
}

}  // namespace

DataReader text_reader() {
  return {"text", "bytes of text files as tokens; targets are the next bytes", open_text, /*takes_inputs=*/true};
}

}  // namespace lockstep
