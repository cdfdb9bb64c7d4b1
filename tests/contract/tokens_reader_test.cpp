// SPDX-License-Identifier: Apache-2.0
//
// The tokens reader: exact values, how documents are packed, and the whole text of every error.
#include "runtime/layer/tensor_hash.hpp"
#include "tests/contract/data_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

using Tokens = std::vector<std::int64_t>;

template <typename T>
std::string bytes_of(const Tokens& tokens) {
  std::string bytes;
  for (const std::int64_t token : tokens) {
    const auto number = static_cast<T>(token);
    bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
  }
  return bytes;
}

std::string uint16s(const Tokens& tokens) {
  return bytes_of<std::uint16_t>(tokens);
}

std::string numpy_file(const std::string& descr, const std::string& shape, const std::string& data,
                       const std::string& order = "False") {
  std::string header = "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }";
  header.resize((10 + header.size() + 64) / 64 * 64 - 11, ' ');
  header += '\n';
  return std::string("\x93NUMPY\x01\0", 8) + bytes_of<std::uint16_t>({static_cast<std::int64_t>(header.size())}) +
         header + data;
}

std::string llmc_file(std::int64_t magic, std::int64_t version, std::int64_t tokens, const std::string& data) {
  std::string header = bytes_of<std::int32_t>({magic, version, tokens});
  header.resize(1024, '\0');
  return header + data;
}

Tokens count_to(std::int64_t number) {
  Tokens tokens(static_cast<std::size_t>(number));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

/// x and targets of every sample: "1 2 3 > 2 3 _", where _ is a target that does not count.
std::vector<std::string> rows_of(const Dataset& data) {
  std::vector<std::string> rows;
  for (const std::int64_t sample : all_of(data)) {
    const Tensors read = data.read({sample});
    const auto text = [](const at::Tensor& tensor) {
      std::vector<std::string> parts;
      for (const std::int64_t value : values<std::int64_t>(tensor))
        parts.push_back(value == -100 ? "_" : concat(value));
      return join(parts, " ");
    };
    rows.push_back(text(read[0]) + " > " + text(read[1]));
  }
  return rows;
}

using Rows = std::vector<std::string>;

}  // namespace

TEST_CASE("tokens: samples are windows of numbers, targets the next ones", "[contract]") {
  const Folder folder;
  write_file("t.bin", uint16s({7, 50256, 65535, 3, 4, 5, 6, 8, 9, 10}));
  const DataSplits splits = open("type: tokens, train: t.bin, context: 4");
  const Dataset& data = *splits.train;
  CHECK(splits.notes.empty());
  CHECK(entry_texts(data, 3) == Rows{"x Long [3, 4]", "targets Long [3, 4]"});
  check_keeps_its_word(data, {0, 1, 1});
  CHECK(rows_of(data) == Rows{"7 50256 65535 3 > 50256 65535 3 4", "4 5 6 8 > 5 6 8 9"});
  CHECK(data.entries(1)[0].below == 65536);
  CHECK(data.reads_in_parallel());
  CHECK(data.place_of(1) == "t.bin: token 4");
  CHECK(rows_of(*open("type: tokens, train: t.bin, context: 4, stride: 5").train).back() == "5 6 8 9 > 6 8 9 10");
  CHECK(open("type: tokens, train: t.bin, context: 4, stride: 1").train->size() == 6);
}

TEST_CASE("tokens: files are one stream, and a sample may lie in several of them", "[contract]") {
  const Folder folder;
  write_file("c.bin", uint16s({5, 6, 7, 8, 9}));
  write_file("a.bin", uint16s({0, 1}));
  write_file("b.npy", numpy_file("'<u4'", "(3,)", bytes_of<std::uint32_t>({2, 3, 70000})));
  write_file("bb.bin", "");
  const DataSplits splits = open("type: tokens, train: '*.*', context: 8");
  CHECK(rows_of(*splits.train) == Rows{"0 1 2 3 70000 5 6 7 > 1 2 3 70000 5 6 7 8"});
  CHECK(splits.train->entries(1)[0].below == 70001);
  REQUIRE(splits.record->train.size() == 4);
  CHECK(splits.record->train[1].path == "b.npy");
  CHECK(splits.record->train[3].size == 10);
  CHECK(open("type: tokens, train: '*.*', context: 1").train->place_of(3) == "b.npy: token 1");
}

TEST_CASE("tokens: files that say what they hold are believed", "[contract]") {
  const Folder folder;
  const Tokens tokens = {1, 2, 3, 4, 5, 6};
  write_file("u2.npy", numpy_file("'<u2'", "(2, 3)", uint16s(tokens)));
  write_file("u4.npy", numpy_file("'<u4'", "(6,)", bytes_of<std::uint32_t>(tokens)));
  write_file("gpt2.bin", llmc_file(20240520, 1, 6, uint16s(tokens)));
  write_file("llama.bin", llmc_file(20240801, 7, 6, bytes_of<std::uint32_t>(tokens)));
  write_file("u4.bin", bytes_of<std::uint32_t>(tokens));
  for (const char* data : {"train: u2.npy", "train: u4.npy", "train: gpt2.bin", "train: llama.bin",
                           "train: u4.bin, dtype: uint32", "train: u4.npy, dtype: uint32"}) {
    INFO(data);
    CHECK(rows_of(*open(concat("type: tokens, context: 5, ", data)).train) == Rows{"1 2 3 4 5 > 2 3 4 5 6"});
  }
}

TEST_CASE("tokens: a file of wider numbers than said is doubted", "[contract]") {
  const Folder folder;
  write_file("t.bin", bytes_of<std::uint32_t>(count_to(40)));
  CHECK(open("type: tokens, train: t.bin, context: 5").notes ==
        Rows{"t.bin: every second token is 0: write dtype: uint32 if that is its type, dtype: uint16 if it is not"});
  CHECK(open("type: tokens, train: t.bin, context: 5, dtype: uint16").notes.empty());
  CHECK(open("type: tokens, train: t.bin, context: 5, dtype: uint32").notes.empty());
}

TEST_CASE("tokens: max_tokens cuts what is read, and the record knows", "[contract]") {
  const Folder folder;
  write_file("a.bin", uint16s(count_to(10)));
  write_file("b.npy", numpy_file("'<u2'", "(10,)", uint16s(count_to(10))));
  const DataSplits splits = open("type: tokens, train: ['a.bin', 'b.npy'], context: 3, max_tokens: 13");
  CHECK(splits.train->size() == 4);
  CHECK(rows_of(*splits.train).back() == "9 0 1 > 0 1 2");
  REQUIRE(splits.record->train.size() == 2);
  CHECK(splits.record->train[0].size == 20);
  CHECK(splits.record->train[1].size == 128 + 6);
  CHECK(open("type: tokens, train: ['a.bin', 'b.npy'], context: 3, max_tokens: 10").record->train.size() == 1);
}

TEST_CASE("tokens: the token behind the end of a document is nobody's target", "[contract]") {
  const Folder folder;
  write_file("t.bin", uint16s({1, 2, 9, 3, 9, 9, 4, 5, 6, 9, 7}));
  const DataSplits splits = open("type: tokens, train: t.bin, context: 5, documents: {end: 9}");
  CHECK(rows_of(*splits.train) == Rows{"1 2 9 3 9 > 2 9 _ 9 _", "9 4 5 6 9 > _ 5 6 9 _"});
  CHECK(splits.notes.empty());
  const DataSplits one = open("type: tokens, train: t.bin, context: 5, documents: {end: 10}");
  CHECK(one.notes == Rows{"data.train: no token is 10, which documents.end says: this is one document (t.bin)"});
  CHECK(one.train->entries(1)[0].below == 11);
}

TEST_CASE("tokens: whole documents are packed into samples, long ones cut", "[contract]") {
  const Folder folder;
  const std::string data = "type: tokens, train: t.bin, context: 4, documents: {end: 9, packing: whole}";
  const auto rows = [&](const Tokens& tokens) {
    write_file("t.bin", uint16s(tokens));
    return rows_of(*open(data).train);
  };
  // Two that fit, one that does not fit beside them, one that is longer than a sample and the rest of it.
  CHECK(rows({1, 2, 9, 3, 9, 4, 5, 9, 10, 11, 12, 13, 14, 15, 9, 6, 9}) ==
        Rows{"1 2 9 3 > 2 9 _ 9", "4 5 9 9 > 5 9 _ _", "10 11 12 13 > 11 12 13 14", "14 15 9 6 > 15 9 _ 9"});
  // One that fits to the token; the last one may lack its end.
  CHECK(rows({1, 2, 3, 4, 9, 5, 6}) == Rows{"1 2 3 4 > 2 3 4 9", "5 9 9 9 > 6 _ _ _"});
  // Documents of nothing but their end are no samples, but may lie between others.
  CHECK(rows({9, 9, 9, 9, 9, 9, 1, 9, 9, 2, 9}) == Rows{"9 1 9 9 > _ 9 _ _", "2 9 9 9 > 9 _ _ _"});
  // Cut so that only the end is left of it.
  CHECK(rows({1, 2, 3, 4, 5, 9, 6, 9}) == Rows{"1 2 3 4 > 2 3 4 5", "5 9 6 9 > 9 _ 9 _"});
  CHECK(rows({1, 2, 3, 4, 9}) == Rows{"1 2 3 4 > 2 3 4 9"});
  write_file("t.bin", uint16s({9, 9, 9}));
  CHECK(error_of(data) ==
        "job.yaml:1:29: data.train: got 3 tokens (t.bin), expected a document with a token beside "
        "documents.end");
}

TEST_CASE("tokens: every token but the first of a document is a target once when whole documents are packed",
          "[contract]") {
  const Folder folder;
  std::uint64_t state = 1;
  const auto random = [&](std::uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
  };
  for (int round = 0; round < 50; ++round) {
    Tokens tokens, expected;
    std::int64_t next = 1;
    for (std::uint64_t documents = 1 + random(20); documents > 0; --documents) {
      const auto length = static_cast<std::int64_t>(random(random(4) == 0 ? 40 : 8));
      for (std::int64_t i = 0; i < length; ++i) {
        if (i > 0) expected.push_back(next);
        tokens.push_back(next++);
      }
      if (length > 0) expected.push_back(0);
      tokens.push_back(0);
    }
    if (expected.empty()) continue;
    write_file("t.bin", uint16s(tokens));
    const auto data =
        open(concat("type: tokens, train: t.bin, context: ", 1 + random(12), ", documents: {end: 0, packing: whole}"))
            .train;
    Tokens targets;
    for (const std::int64_t target : values<std::int64_t>(data->read(all_of(*data))[1]))
      if (target != -100) targets.push_back(target);
    CHECK(targets == expected);
  }
}

TEST_CASE("tokens: what is wrong is named", "[contract]") {
  const Folder folder;
  write_file("t.bin", uint16s(count_to(10)));
  write_file("odd.bin", "abc");
  write_file("gone.npy", numpy_file("'<u2'", "(7,)", uint16s(count_to(6))));
  write_file("i8.npy", numpy_file("'<i8'", "(2,)", std::string(16, 'a')));
  write_file("record.npy", numpy_file("[('a', '<u2'), ('b', '<u2')]", "(2,)", std::string(8, 'a')));
  write_file("f.npy", numpy_file("'<u2'", "(2, 2)", std::string(8, 'a'), "True"));
  write_file("shape.npy", numpy_file("'<u2'", "(2; 2)", std::string(8, 'a')));
  write_file("huge.npy", numpy_file("'<u2'", "(4294967296, 4294967296)", std::string(8, 'a')));
  write_file("short.npy", std::string("\x93NUMPY\x01\0\xff\xff{", 11));
  write_file("llm.bin", llmc_file(20240520, 1, 100, uint16s(count_to(10))));
  const std::string here = folder.path(), cut = "; it was cut short, or added to";
  const std::vector<Bad> cases = {
      {"type: tokens, train: no.bin, context: 4",
       "job.yaml:1:29: data.train: no file matches 'no.bin' (working folder: " + here + ")"},
      {"type: tokens, train: t.bin",
       "job.yaml:1:7: data.context: missing, expected an integer from 1 to 16777216; this model has none that could be "
       "the default"},
      {"type: tokens, train: t.bin, context: 10",
       "job.yaml:1:29: data.train: got 10 tokens (t.bin), expected at least 11 (context + 1)"},
      {"type: tokens, train: t.bin, context: 4, max_tokens: 3",
       "job.yaml:1:29: data.train: got 3 tokens (t.bin), expected at least 5 (context + 1); max_tokens is too small"},
      {"type: tokens, train: t.bin, context: 4, dtype: int16",
       "job.yaml:1:55: data.dtype: got int16, expected one of uint16, uint32; did you mean 'uint16'?"},
      {"type: tokens, train: t.bin, context: 4, vocab: 8",
       "t.bin: token 8: got 8, expected less than data.vocab (8); the file is of another tokenizer, or data.dtype is "
       "not its type"},
      {"type: tokens, train: t.bin, context: 4, vocab: 8, documents: {end: 8}",
       "job.yaml:1:75: data.documents.end: got 8, expected an integer from 0 to 7"},
      {"type: tokens, train: t.bin, context: 4, documents: {}",
       "job.yaml:1:59: data.documents.end: missing, expected an integer from 0 to 4294967295"},
      {"type: tokens, train: t.bin, context: 4, documents: {end: 1, packing: hole}",
       "job.yaml:1:77: data.documents.packing: got hole, expected one of stream, whole; did you mean 'whole'?"},
      {"type: tokens, train: t.bin, context: 4, stride: 2, documents: {end: 1, packing: whole}",
       "job.yaml:1:56: data.stride: got a stride beside documents.packing: whole, where samples begin with documents; "
       "leave one of them out"},
      {"type: tokens, train: t.bin, context: 4, document: {end: 1}",
       "job.yaml:1:48: data.document: got an unknown key, expected one of type, train, eval, dtype, context, stride, "
       "vocab, max_tokens, documents; did you mean 'documents'?"},
      {"type: tokens, train: odd.bin, context: 1",
       "odd.bin: has 3 bytes, which are no whole number of tokens of 2 bytes; it was cut short, or data.dtype is not "
       "its type"},
      {"type: tokens, train: gone.npy, context: 1",
       "gone.npy: is a NumPy file of 7 tokens of 2 bytes, and has 12 bytes of them" + cut},
      {"type: tokens, train: i8.npy, context: 1",
       "i8.npy: got a NumPy file of '<i8', expected '<u2' or '<u4'; write it as numpy.uint16 or numpy.uint32"},
      {"type: tokens, train: record.npy, context: 1",
       "record.npy: got a NumPy file of [('a', expected '<u2' or '<u4'; write it as numpy.uint16 or numpy.uint32"},
      {"type: tokens, train: f.npy, context: 1",
       "f.npy: got a NumPy file in Fortran's order, expected rows; write it with numpy.ascontiguousarray"},
      {"type: tokens, train: shape.npy, context: 1", "shape.npy: got a NumPy file with a damaged header"},
      {"type: tokens, train: huge.npy, context: 1", "huge.npy: got a NumPy file with a damaged header"},
      {"type: tokens, train: short.npy, context: 1", "short.npy: got a NumPy file with a damaged header"},
      {"type: tokens, train: llm.bin, context: 1",
       "llm.bin: is a file of llm.c of 100 tokens of 2 bytes, and has 20 bytes of them" + cut},
      {"type: tokens, train: i8.npy, context: 1, dtype: uint32",
       "i8.npy: got a NumPy file of '<i8', expected '<u2' or '<u4'; write it as numpy.uint16 or numpy.uint32"},
  };
  for (const Bad& bad : cases) CHECK(error_of(bad.data) == bad.message);
  write_file("u2.npy", numpy_file("'<u2'", "(7,)", uint16s(count_to(7))));
  CHECK(error_of("type: tokens, train: u2.npy, context: 1, dtype: uint32") ==
        "u2.npy: is a NumPy file of uint16, and data.dtype says uint32");
}

namespace {

/// Bytes of files that count as this process's memory.
std::int64_t resident_file_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "RssFile:") {
      status >> word;
      return std::stoll(word) * 1024;
    }
  FAIL("no RssFile in /proc/self/status");
  return 0;
}

}  // namespace

TEST_CASE("tokens: a large file is read as it lies on the disk, and its pages are let go", "[contract]") {
  const Folder folder;
  constexpr std::int64_t megabytes = 256, tokens = megabytes << 19;
  {
    std::ofstream file("t.bin", std::ios::binary);
    std::vector<std::uint16_t> block(1 << 19);
    for (std::int64_t i = 0; i < megabytes; ++i) {
      for (std::size_t j = 0; j < block.size(); ++j)
        block[j] = static_cast<std::uint16_t>(i * 31 + static_cast<std::int64_t>(j));
      file.write(reinterpret_cast<const char*>(block.data()), static_cast<std::streamsize>(2 * block.size()));
    }
  }
  const std::int64_t before = resident_file_bytes();
  const auto data = open("type: tokens, train: t.bin, context: 1023, stride: 1024").train;
  std::int64_t most = resident_file_bytes(), wrong = 0;
  CHECK(data->size() == tokens / 1024);
  for (std::int64_t i = 0; i < data->size(); ++i) {
    const std::int64_t sample = i * 7919 % data->size();  // anywhere
    const at::Tensor x = data->read({sample})[0];
    const std::int64_t token = sample * 1024 + 1000;
    wrong += x[0][1000].item<std::int64_t>() != ((token >> 19) * 31 + (token & 0x7ffff)) % 65536;
    if (i % 1000 == 0) most = std::max(most, resident_file_bytes());
  }
  CHECK(wrong == 0);
  INFO(most - before);
  CHECK(most - before < std::int64_t{100} << 20);
}

TEST_CASE("the hash of a text is the same in pieces", "[contract]") {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 37);
  for (const std::size_t size : {0, 1, 7, 8, 9, 64, 999}) {
    const std::string_view whole = std::string_view(text).substr(0, size);
    for (const std::size_t piece : {8, 16, 504}) {
      TextHash hash(size);
      for (std::size_t begin = 0; begin < size; begin += piece) hash.add(whole.substr(begin, piece));
      CHECK(hash.value() == hash_of(whole));
    }
  }
}
