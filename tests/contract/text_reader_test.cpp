// SPDX-License-Identifier: Apache-2.0
//
// The text reader: exact values, and the whole text of every error.
#include "tests/contract/data_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

TEST_CASE("text: samples are windows, targets the next bytes", "[contract]") {
  const Folder folder;
  write_file("a.txt", "abcdefghij");
  const DataSplits splits = open("type: text, train: a.txt, context: 4");
  const Dataset& data = *splits.train;
  CHECK(splits.eval == nullptr);
  CHECK(data.size() == 2);
  CHECK(entry_texts(data, 3) == std::vector<std::string>{"x Long [3, 4]", "targets Long [3, 4]"});
  check_keeps_its_word(data, {0, 1, 1});
  const Tensors read = data.read({1, 0});
  CHECK(values<std::int64_t>(read[0]) == std::vector<std::int64_t>{'e', 'f', 'g', 'h', 'a', 'b', 'c', 'd'});
  CHECK(values<std::int64_t>(read[1]) == std::vector<std::int64_t>{'f', 'g', 'h', 'i', 'b', 'c', 'd', 'e'});
}

TEST_CASE("text: files are joined in path order, each once, as they are", "[contract]") {
  const Folder folder;
  write_file("d/b.txt", "BB\n");
  write_file("d/a.txt", std::string("A\0\xff", 3));
  write_file("d/B.txt", "");
  write_file("c.md", "c");
  std::filesystem::create_directories("d/folder.txt");
  const auto data = open("type: text, train: [d/*.txt, 'd/[ab].txt', c.md], context: 6").train;
  CHECK(data->size() == 1);
  const Tensors read = data->read({0});
  CHECK(values<std::int64_t>(read[0]) == std::vector<std::int64_t>{'c', 'A', 0, 255, 'B', 'B'});
  CHECK(values<std::int64_t>(read[1]) == std::vector<std::int64_t>{'A', 0, 255, 'B', 'B', '\n'});
}

TEST_CASE("text: a name that exists is taken as it is, else it is a pattern", "[contract]") {
  const Folder folder;
  for (const char* name :
       {"part[1].txt", "what?.txt", "all*.txt", "d[1]/x.txt", "d[1]/y.txt", "d1/z.txt", "part2.txt", "e[2]/d[1].txt"})
    write_file(name, std::string(name) + "........................");
  const auto first_bytes = [](const std::string& pattern) {
    const auto data = open("type: text, train: \"" + pattern + "\", context: 16, stride: 1000").train;
    std::string bytes;
    for (const std::int64_t byte : values<std::int64_t>(data->read({0})[0])) bytes += static_cast<char>(byte);
    return bytes.substr(0, bytes.find('.'));
  };
  CHECK(first_bytes("part[1].txt") == "part[1]");
  CHECK(first_bytes("what?.txt") == "what?");
  CHECK(first_bytes("all*.txt") == "all*");
  CHECK(first_bytes("d[1]/y.txt") == "d[1]/y");
  CHECK(first_bytes("d[1]/*.txt") == "d[1]/x");
  CHECK(first_bytes("./d[1]//x.txt") == "d[1]/x");
  CHECK(first_bytes(folder.path() + "/d[1]/[xy].txt") == "d[1]/x");
  CHECK(first_bytes("?[[]2]/d[1].txt") == "e[2]/d[1]");  // a name below a pattern
  CHECK(first_bytes("part[[]1].txt") == "part[1]");
  CHECK(first_bytes("part\\\\[1].txt") == "part[1]");
  CHECK(first_bytes("part[2].txt") == "part2");
  CHECK(first_bytes("d[!x]/*.txt") == "d1/z");
  CHECK(error_of("type: text, train: 'part[3].txt', context: 4").find("no file matches 'part[3].txt'") !=
        std::string::npos);
}

TEST_CASE("text: a file that is no text is read as it is, with a note", "[contract]") {
  const Folder folder;
  write_file("a.gz", std::string("\x1f\x8b\x08\0\0\0abcdefgh", 14));
  write_file("b.txt", "abcdefgh");
  CHECK(open("type: text, train: b.txt, context: 4").notes.empty());
  const DataSplits splits = open("type: text, train: '[ab].*', context: 4");
  CHECK(splits.notes ==
        std::vector<std::string>{"a.gz: got gzip-compressed data, expected text; unpack it first: gunzip; its "
                                 "bytes are the tokens, as they are"});
  CHECK(values<std::int64_t>(splits.train->read({0})[0])[0] == 0x1f);
}

TEST_CASE("text: stride, max_bytes and the model's context", "[contract]") {
  const Folder folder;
  write_file("a.txt", "abcdefghij");
  const DataContext context = {.seed = 1, .context = 3};
  CHECK(open("type: text, train: a.txt", context).train->size() == 3);
  CHECK(open("type: text, train: a.txt, context: 9", context).train->size() == 1);
  CHECK(open("type: text, train: a.txt, stride: 1", context).train->size() == 7);
  CHECK(open("type: text, train: a.txt, stride: 100", context).train->size() == 1);
  const DataSplits splits = open("type: text, train: a.txt, eval: [a.txt], stride: 2, max_bytes: 6", context);
  CHECK(splits.eval->size() == 2);
  CHECK(values<std::int64_t>(splits.train->read({1})[1]) == std::vector<std::int64_t>{'d', 'e', 'f'});
}

TEST_CASE("text: what is wrong is named", "[contract]") {
  const Folder folder;
  write_file("a.txt", "abcdefghij");
  write_file("b.txt", "");
  std::filesystem::create_directories("only.folder");
  std::filesystem::create_symlink("gone", "broken.txt");
  const std::string here = folder.path();
  const std::vector<Bad> cases = {
      {"type: text, train: '*.rst', context: 4",
       "job.yaml:1:27: data.train: no file matches '*.rst' (working folder: " + here + ")"},
      {"type: text, train: [a.txt, no/*], context: 4",
       "job.yaml:1:27: data.train: no file matches 'no/*' (working folder: " + here + ")"},
      {"type: text, train: only.folder, context: 4",
       "job.yaml:1:27: data.train: no file matches 'only.folder' (working folder: " + here + ")"},
      {"type: text, train: '~/a.txt', context: 4",
       "job.yaml:1:27: data.train: no file matches '~/a.txt' (working folder: " + here +
           "); ~ and ${X} are not expanded here: write the path out"},
      {"type: text, train: a.txt, eval: '${HOME}/x', context: 4",
       "job.yaml:1:40: data.eval: no file matches '${HOME}/x' (working folder: " + here +
           "); ~ and ${X} are not expanded here: write the path out"},
      {"type: text, train: broken.txt, context: 4",
       "broken.txt: cannot be read: No such file or directory (working folder: " + here + ")"},
      {"type: text, train: a.txt, context: 10",
       "job.yaml:1:27: data.train: got 10 bytes (a.txt), expected at least 11 (context + 1)"},
      {"type: text, train: a.txt, eval: [a.txt, b.txt], context: 10",
       "job.yaml:1:27: data.train: got 10 bytes (a.txt), expected at least 11 (context + 1)"},
      {"type: text, train: a.txt, max_bytes: 4, context: 4",
       "job.yaml:1:27: data.train: got 4 bytes (a.txt), expected at least 5 (context + 1); max_bytes is too small"},
      {"type: text, train: a.txt",
       "job.yaml:1:7: data.context: missing, expected an integer >= 1; this model has none that could be the default"},
      {"type: text, train: a.txt, context: 0", "job.yaml:1:43: data.context: got 0, expected an integer >= 1"},
      {"type: text, train: a.txt, context: 4, stride: 0",
       "job.yaml:1:54: data.stride: got 0, expected an integer >= 1"},
      {"type: text, train: [], context: 4", "job.yaml:1:27: data.train: got [], expected a glob or a list of globs"},
      {"type: text, context: 4", "job.yaml:1:7: data.train: missing, expected a non-empty string"},
      {"type: text, train: a.txt, context: 4, strid: 1",
       "job.yaml:1:46: data.strid: got an unknown key, expected one of type, train, eval, context, stride, max_bytes; "
       "did you mean 'stride'?"},
  };
  for (const Bad& bad : cases) CHECK(error_of(bad.data) == bad.message);
}
