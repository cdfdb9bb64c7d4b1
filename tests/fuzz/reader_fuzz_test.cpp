// SPDX-License-Identifier: Apache-2.0
//
// Every reader on damaged files: what comes out is samples of the promised shape, or one line for the user.
#include <filesystem>
#include <fstream>
#include <sstream>

#include <ATen/ATen.h>

#include "runtime/checkpoint/safetensors.hpp"
#include "runtime/data/dataset.hpp"
#include "runtime/layer/loss.hpp"
#include "tests/contract/table_fixture.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/image_files.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

namespace lockstep::fuzz {
namespace {

void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string in_utf16(const std::string& text) {
  std::string wide = "\xFF\xFE";
  for (const char c : text) wide += {c, '\0'};
  return wide;
}

std::string with_line_ends(const std::string& text, Random& random) {
  static const std::vector<std::string> ends = {"\n", "\r\n", "\r", "\n\n", "\n\r"};
  const bool mixed = random.one_in(2);
  const std::string one = random.any(ends);
  std::string result;
  for (const char c : text) result += c == '\n' ? (mixed ? random.any(ends) : one) : std::string(1, c);
  return result;
}

std::string damaged(std::string text, Random& random, const std::vector<std::string>& pieces) {
  if (random.one_in(8)) text = with_line_ends(text, random);
  if (random.one_in(10)) text = in_utf16(text);
  if (random.one_in(10)) text = "\xEF\xBB\xBF" + text;
  if (random.one_in(20)) return text;
  return mutate_bytes(text, random, pieces);
}

/// "" or what the dataset does that it must not. `may_be_negative`: integers, for files may hold any.
std::string read_samples(const Dataset& dataset, Random& random, bool may_be_negative) {
  const std::int64_t size = dataset.size();
  if (size < 1) return concat("a dataset of ", size, " samples");
  const std::vector<std::int64_t> samples = {0, size - 1,
                                             static_cast<std::int64_t>(random.below(static_cast<std::size_t>(size)))};
  const std::vector<EntrySpec> entries = dataset.entries(3);
  const Tensors read = random.one_in(2) ? dataset.read(samples) : dataset.draw(samples, 1 << 20);
  if (read.size() != entries.size()) return "other entries than promised";
  for (std::size_t i = 0; i < read.size(); ++i) {
    if (read[i].sizes() != at::IntArrayRef(entries[i].sizes) || read[i].scalar_type() != entries[i].dtype)
      return "not what was promised: " + to_string(entries[i]);
    if (read[i].scalar_type() != at::kLong || entries[i].below == 0) continue;
    const auto* values = read[i].const_data_ptr<std::int64_t>();
    for (std::int64_t j = 0; j < read[i].numel(); ++j)
      if ((values[j] < 0 && values[j] != kIgnoredTarget && !may_be_negative) || values[j] >= entries[i].below)
        return concat("the value ", values[j], " of ", to_string(entries[i]));
  }
  return "";
}

struct Tally {
  int good = 0, bad = 0;
};

/// Opens `section` and reads from it.
std::string judge_reader(const std::string& section, Random& random, bool show, Tally& tally) {
  std::string message, inside;
  const std::string verdict = judge_input(
      [&] {
        const DataSplits splits = open_data(load_config_text(section, "fuzz.yaml"), {1, 16});
        const bool any = section.starts_with("type: safetensors");
        inside = read_samples(*splits.train, random, any);
        if (inside.empty() && splits.eval) inside = read_samples(*splits.eval, random, any);
      },
      message);
  (message.empty() ? tally.good : tally.bad) += 1;
  if (show) WARN(section << "\nmessage: " << message);
  return verdict.empty() ? inside : verdict;
}

const std::vector<std::string>& table_pieces() {
  static const std::vector<std::string> pieces = [] {
    std::vector<std::string> all = {",",     ";",   "\t",           "\n",     "\r\n",
                                    "\r",    "\"",  "\"\"",         " ",      "a",
                                    "-",     "+",   "1e38",         "1e39",   "-0",
                                    "0x1p3", "#",   ",,",           "\xFF",   "kind",
                                    "\xC3",  "1,2", "\xEF\xBB\xBF", "\n\n\n", "123456789012345678901234567890"};
    all.insert(all.end(), odd_numbers().begin(), odd_numbers().end());
    all.emplace_back(1, '\0');
    return all;
  }();
  return pieces;
}

}  // namespace

TEST_CASE("damaged tables give rows or one line for the user", "[fuzz]") {
  const std::string whole = test::text_of_file(LOCKSTEP_SOURCE_DIR "/configs/data/iris-like.csv");
  REQUIRE(whole.size() > 1000);
  const test::TemporaryFolder folder;
  const std::string train = folder.file("train.csv"), eval = folder.file("eval.csv");
  write_text(eval, whole);
  Tally tally;
  const std::string wrong = run_cases("csv", 400, [&](Random& random, bool show) {
    // A few rows of it: then most of the damage is in what is read first.
    std::string text = random.one_in(2) ? whole : whole.substr(0, whole.find('\n', 200 + random.below(400)) + 1);
    text = damaged(text, random, table_pieces());
    write_text(train, text);
    const std::vector<std::string> targets = {"kind", "0", "4", "petal", "-1", "99999999999", ""};
    const std::string section =
        concat("type: csv\ntrain: ", train, "\n", random.one_in(3) ? concat("eval: ", eval, "\n") : "",
               "task: ", random.one_in(2) ? "classification" : "regression", "\ntargets: [\"",
               random.one_in(4) ? random.any(targets) : "kind", "\"]\n", random.one_in(2) ? "normalize: true\n" : "",
               random.one_in(4) ? "header: true\n" : "", random.one_in(8) ? "delimiter: \";\"\n" : "");
    if (show) WARN(text);
    return judge_reader(section, random, show, tally);
  });
  CHECK(wrong == "");
  if (tally.good + tally.bad >= 100) {
    CHECK(tally.good >= 5);
    CHECK(tally.bad >= 50);
  }
}

TEST_CASE("damaged tables of every format give rows or one line for the user", "[fuzz]") {
  const test::TemporaryFolder folder;
  std::string json;
  for (int i = 0; i < 40; ++i)
    json += concat("{\"n\": ", i % 7, ", \"d\": ", 0.25 * i, ", \"c\": \"", "abc"[i % 3], "\", \"day\": \"2024-01-",
                   10 + i % 20, "\", \"ids\": [", i, ", ", i + 1, ", 3], \"t\": \"text ", i,
                   "\", \"y\": ", i % 5 == 0 ? "null" : concat(i % 2), "}\n");
  const auto table = test::table_of(json);
  const auto bytes_of = [&](const std::string& name) { return test::text_of_file(folder.file(name)); };
  std::vector<std::pair<std::string, std::string>> files = {{"t.jsonl", json}};
  test::write_parquet(folder.file("t.parquet"), table, 16);
  test::write_arrow(folder.file("t.arrow"), table, true, 16);
  test::write_arrow(folder.file("t.feather"), table, false, 16);
  test::write_packed(folder.file("t.jsonl.gz"), json, arrow::Compression::GZIP);
  test::write_packed(folder.file("t.jsonl.zst"), json, arrow::Compression::ZSTD);
  for (const char* name : {"t.parquet", "t.arrow", "t.feather", "t.jsonl.gz", "t.jsonl.zst"})
    files.emplace_back(name, bytes_of(name));
  std::vector<std::string> pieces = table_pieces();
  for (const char* piece : {"null", "{", "}", "[", "]", "\"n\": ", "true", "\\u0000", "{}", "1e400", "[[1]]"})
    pieces.emplace_back(piece);
  const std::vector<std::string> roles = {
      "task: regression\ntargets: [y]\nignore: [ids, t]\nmissing: {default: mean, y: drop, c: indicator}\n",
      "task: regression\ntargets: [y, d]\ncolumns: [n, day]\nmissing: drop\nnormalize: true\n",
      "task: classification\ntargets: [c]\ncolumns: [n, d]\ncategories: [n]\nunknown: zeros\nmissing: 3\n",
      "task: classification\ntargets: [c]\ntext: t\ncontext: 8\n",
      "task: next_token\ntokens: ids\ncontext: 2\n",
      "task: next_token\nprompt: t\nanswer: c\ncontext: 6\ntruncate: true\n",
      "task: forecast\ntargets: [d]\ncolumns: [n]\nwindow: {length: 3, horizon: 2, group: c}\n"};
  Tally tally;
  const std::string wrong = run_cases("table", 300, [&](Random& random, bool show) {
    auto [name, bytes] = random.any(files);
    bytes = random.one_in(20) ? bytes : mutate_bytes(bytes, random, pieces);
    write_text(folder.file(name), bytes);
    return judge_reader(concat("type: table\ntrain: ", folder.file(name), "\n", random.any(roles)), random, show,
                        tally);
  });
  CHECK(wrong == "");
  if (tally.good + tally.bad >= 100) {
    CHECK(tally.good >= 20);
    CHECK(tally.bad >= 50);
  }
}

TEST_CASE("a table of one endless line, of ten thousand columns or of nothing is read or refused", "[fuzz]") {
  const test::TemporaryFolder folder;
  const std::string file = folder.file("odd.csv");
  const std::string section = concat("{type: csv, train: ", file, ", task: regression, targets: [\"0\"]}");
  const auto numbers = [](const char* number, int count) {
    std::string text = number;
    for (int i = 1; i < count; ++i) text += concat(",", number);
    return text;
  };
  const std::string row = numbers("1", 10'000);
  Random random(1);
  Tally tally;
  for (const std::string& text :
       {std::string(), std::string("\n\n\n"), std::string(1 << 22, '7'), std::string(1 << 22, ','),
        std::string(1 << 20, '\0'), std::string(1 << 20, '"'), row + "\n" + row + "\n", row + "\n" + row + ",1\n",
        numbers("name", 10'000) + "\n1\n", in_utf16(row)}) {
    write_text(file, text);
    INFO(text.substr(0, 40));
    CHECK(judge_reader(section, random, false, tally) == "");
  }
  CHECK(tally.good == 1);  // two rows of ten thousand numbers
}

TEST_CASE("text of any bytes and any numbers about it give samples or one line for the user", "[fuzz]") {
  const test::TemporaryFolder folder;
  const std::string train = folder.file("train.txt");
  Tally tally;
  const std::string wrong = run_cases("text", 200, [&](Random& random, bool show) {
    std::string text;
    for (std::size_t i = random.below(300); i > 0; --i) text += static_cast<char>(random.bits());
    write_text(train, text);
    std::string section = concat("type: text\ntrain: ", train, "\n");
    for (const char* key : {"context", "stride", "max_bytes"}) {
      if (random.one_in(2))
        section += concat(key, ": ", random.one_in(2) ? concat(random.below(40)) : random.any(odd_numbers()), "\n");
    }
    return judge_reader(section, random, show, tally);
  });
  CHECK(wrong == "");
  if (tally.good + tally.bad >= 100) {
    CHECK(tally.good >= 20);
    CHECK(tally.bad >= 20);
  }
}

TEST_CASE("made-up data of any numbers gives samples or one line for the user", "[fuzz]") {
  Tally tally;
  const std::string wrong = run_cases("synthetic", 100, [&](Random& random, bool show) {
    const std::vector<std::string> tasks = {"regression", "classification", "tokens"};
    std::string section = concat("type: synthetic\ntask: ", random.any(tasks), "\n");
    // Sizes that are allowed and take a second to make are left to the configs.
    const auto number = [&] {
      const std::string odd = random.any(odd_numbers());
      return odd.size() == 8 || odd.size() == 7 || random.one_in(2) ? concat(random.below(20)) : odd;
    };
    for (const char* key : {"samples", "eval_samples", "noise", "inputs", "outputs", "context", "vocab"}) {
      if (!random.one_in(5)) section += concat(key, ": ", number(), "\n");
    }
    return judge_reader(section, random, show, tally);
  });
  CHECK(wrong == "");
  if (tally.good + tally.bad >= 100) CHECK(tally.bad >= 20);
}

namespace {

/// Bytes at which a header may break, and numbers of both byte orders.
const std::vector<std::string>& binary_pieces() {
  static const std::vector<std::string> pieces = [] {
    std::vector<std::string> all = {"\x1f\x8b",
                                    "\x93NUMPY",
                                    "'<u4'",
                                    "(0,)",
                                    "(18446744073709551616,)",
                                    "\xff\xd8",
                                    "\xff\xd9",
                                    "\xff\xda",
                                    "\xff\xc0",
                                    "\xff\xc2",
                                    "\x89PNG",
                                    "IDAT",
                                    "IEND",
                                    "PLTE",
                                    "tRNS",
                                    "\"F32\"",
                                    "\"U16\"",
                                    "[0]",
                                    "9223372036854775807"};
    for (const std::uint64_t number : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{255}, std::uint64_t{65535},
                                       std::uint64_t{1} << 31, ~std::uint64_t{0}})
      for (const std::size_t width : {1, 2, 4, 8}) {
        std::string bytes(width, '\0');
        for (std::size_t i = 0; i < width; ++i) bytes[i] = static_cast<char>(number >> (8 * i));
        all.push_back(bytes);
        all.emplace_back(bytes.rbegin(), bytes.rend());
      }
    return all;
  }();
  return pieces;
}

/// One in twenty is left whole.
std::string damaged_bytes(const std::string& bytes, Random& random) {
  return random.one_in(20) ? bytes : mutate_bytes(bytes, random, binary_pieces());
}

void check_tally(const Tally& tally, int good, int bad) {
  if (tally.good + tally.bad < 100) return;
  CHECK(tally.good >= good);
  CHECK(tally.bad >= bad);
}

std::string random_bytes(Random& random, std::size_t count) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) bytes += static_cast<char>(random.bits());
  return bytes;
}

}  // namespace

TEST_CASE("damaged files of tokens give samples or one line for the user", "[fuzz]") {
  const test::TemporaryFolder folder;
  const std::string train = folder.file("train.bin");
  std::string numpy =
      std::string("\x93NUMPY\x01\0\x76\0", 10) + "{'descr': '<u2', 'fortran_order': False, 'shape': (20,), }";
  numpy.resize(128, ' ');
  std::string llmc = {'\x88', '\xd8', 0x34, 0x01, 1, 0, 0, 0, 20, 0, 0, 0};
  llmc.resize(1024, '\0');
  Tally tally;
  const std::string wrong = run_cases("tokens", 300, [&](Random& random, bool show) {
    const std::string tokens = random_bytes(random, 40);
    const std::vector<std::string> files = {numpy + tokens, llmc + tokens, random_bytes(random, random.below(300))};
    write_text(train, damaged_bytes(random.any(files), random));
    std::string section = concat("type: tokens\ntrain: ", train, "\n");
    for (const char* key : {"context", "stride", "vocab", "max_tokens"})
      if (random.one_in(3))
        section += concat(key, ": ", random.one_in(2) ? concat(random.below(40)) : random.any(odd_numbers()), "\n");
    if (random.one_in(3)) section += "dtype: uint32\n";
    if (random.one_in(3))
      section += concat("documents: {end: ", random.one_in(2) ? "0" : random.any(odd_numbers()),
                        random.one_in(2) ? ", packing: whole" : "", "}\n");
    return judge_reader(section, random, show, tally);
  });
  CHECK(wrong == "");
  check_tally(tally, 20, 50);
}

TEST_CASE("damaged IDX and CIFAR files give images or one line for the user", "[fuzz]") {
  const test::TemporaryFolder folder;
  const std::string images = folder.file("images"), labels = folder.file("labels");
  Tally tally;
  const std::string wrong = run_cases("idx", 200, [&](Random& random, bool show) {
    std::string x = test::idx_file({3, 4, 5}, random_bytes(random, 60)), y = test::idx_file({3}, {1, 0, 2});
    (random.one_in(3) ? y : x) = damaged_bytes(random.one_in(3) ? y : x, random);
#ifdef LOCKSTEP_TEST_IMAGES
    if (random.one_in(2)) x = damaged_bytes(test::gzip_of(x), random);
#endif
    write_text(images, x);
    write_text(labels, y);
    const std::string augment = random.one_in(2) ? "augment: {padding: 9, flip: 0.5}\n" : "";
    return judge_reader(concat("type: idx\ntrain: {images: ", images, ", labels: ", labels, "}\n", augment), random,
                        show, tally);
  });
  CHECK(wrong == "");
  check_tally(tally, 10, 50);
  tally = {};
  const std::string wrong_cifar = run_cases("cifar", 100, [&](Random& random, bool show) {
    const bool fine = random.one_in(2);
    std::string records;
    for (std::size_t i = random.below(3); i > 0; --i)
      records += std::string(fine ? 2 : 1, static_cast<char>(random.below(12))) + std::string(3072, 'x');
    write_text(images, random.one_in(2) ? records : damaged_bytes(records, random));
    return judge_reader(concat("type: ", fine ? "cifar100" : "cifar10", "\ntrain: ", images, "\n"), random, show,
                        tally);
  });
  CHECK(wrong_cifar == "");
  check_tally(tally, 10, 20);
}

TEST_CASE("damaged safetensors give rows or one line for the user", "[fuzz]") {
  const test::TemporaryFolder folder;
  write_safetensors(folder.path(), "whole", {{"x", at::ones({3, 2})}, {"targets", at::zeros({3}, at::kLong)}});
  const std::string whole = folder.read("whole"), train = folder.file("train.safetensors");
  Tally tally;
  const std::string wrong = run_cases("safetensors", 300, [&](Random& random, bool show) {
    write_text(train, damaged_bytes(whole, random));
    const std::vector<std::string> more = {"", "x: targets\n", "dtypes: {targets: float32}\n", "more: [y]\n",
                                           "targets: x\n"};
    return judge_reader(concat("type: safetensors\ntrain: ", train, "\n", random.any(more)), random, show, tally);
  });
  CHECK(wrong == "");
  check_tally(tally, 10, 50);
}

#ifdef LOCKSTEP_TEST_IMAGES
TEST_CASE("damaged images give pictures or one line for the user", "[fuzz]") {
  const test::TemporaryFolder folder;
  std::filesystem::create_directories(folder.file("a"));
  const std::string file = folder.file("a/1.png");
  std::vector<std::string> whole;
  for (const int channels : {1, 2, 3, 4}) {
    whole.push_back(test::png_of(test::picture(13, 9, channels, 1), channels % 2 ? 8 : 16, channels > 2));
    if (channels != 2) whole.push_back(test::jpeg_of(test::picture(13, 20, channels, 2), 80, channels == 1));
  }
  Tally tally;
  const std::string wrong = run_cases("image_folder", 400, [&](Random& random, bool show) {
    write_text(file, damaged_bytes(random.any(whole), random));
    const std::vector<std::string> more = {"", "channels: 1\n", "resize: 30\n", "augment: {random_resized_crop: {}}\n",
                                           "augment: {crop: random, flip: 0.5}\n"};
    return judge_reader(concat("type: image_folder\ntrain: ", folder.path(), "\nsize: 8\n", random.any(more)), random,
                        show, tally);
  });
  CHECK(wrong == "");
  check_tally(tally, 20, 100);
}
#endif

}  // namespace lockstep::fuzz
