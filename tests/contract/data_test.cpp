// SPDX-License-Identifier: Apache-2.0
//
// The readers and the sampler: exact values, and the whole text of every error.
#include <ATen/ATen.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <set>

#include "runtime/data/dataset.hpp"
#include "tests/test.hpp"

namespace lockstep {
namespace {

/// An own working folder, so that relative paths and whole messages are known.
class Folder {
 public:
  Folder() {
    std::filesystem::create_directories(path_);
    path_ = std::filesystem::canonical(path_);
    std::filesystem::current_path(path_);
  }
  ~Folder() {
    std::filesystem::current_path(before_);
    std::filesystem::remove_all(path_);
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path before_ = std::filesystem::current_path();
  std::filesystem::path path_ = std::filesystem::temp_directory_path() / concat("lockstep_data_", getpid());
};

void write_file(const std::string& path, const std::string& text) {
  if (const auto parent = std::filesystem::path(path).parent_path(); !parent.empty()) {
    std::filesystem::create_directories(parent);
  }
  std::ofstream(path, std::ios::binary) << text;
}

DataSplits open(const std::string& data, const DataContext& context = {}) {
  return open_data(load_config_text("data: {" + data + "}\n", "job.yaml").section("data"), context);
}

std::string error_of(const std::string& data, const DataContext& context = {}) {
  try {
    open(data, context);
  } catch (const UserError& error) {
    CHECK(error.exit_code() == ExitCode::user_input);
    return error.what();
  }
  return "no error";
}

template <typename T>
std::vector<T> values(const at::Tensor& tensor) {
  REQUIRE(tensor.is_contiguous());
  const T* first = tensor.const_data_ptr<T>();
  return {first, first + tensor.numel()};
}

std::vector<std::int64_t> all_of(const Dataset& data) {
  std::vector<std::int64_t> samples(static_cast<std::size_t>(data.size()));
  std::iota(samples.begin(), samples.end(), 0);
  return samples;
}

std::vector<std::string> entry_texts(const Dataset& data, std::int64_t rows) {
  std::vector<std::string> texts;
  for (const EntrySpec& entry : data.entries(rows)) {
    CHECK(entry.batched);
    CHECK_FALSE(entry.differentiable);
    texts.push_back(concat(entry.name, " ", c10::toString(entry.dtype), " [", join(entry.sizes), "]"));
  }
  return texts;
}

/// What read() gives is what entries() promised.
void check_keeps_its_word(const Dataset& data, const std::vector<std::int64_t>& samples) {
  const std::vector<EntrySpec> entries = data.entries(static_cast<std::int64_t>(samples.size()));
  const Tensors tensors = data.read(samples);
  REQUIRE(tensors.size() == entries.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    CHECK(tensors[i].sizes().vec() == entries[i].sizes);
    CHECK(tensors[i].scalar_type() == entries[i].dtype);
    CHECK(tensors[i].is_contiguous());
    CHECK(tensors[i].is_cpu());
  }
}

struct Bad {
  const char* data;
  std::string message;
};

}  // namespace

// ---- what a run's data was, for who goes on

namespace {

std::uint64_t hash_of_train(const std::string& data, const DataContext& context = {}) {
  const DataSplits splits = open(data, context);
  REQUIRE(splits.record);
  REQUIRE(splits.record->train.size() == 1);
  return splits.record->train[0].hash;
}

}  // namespace

TEST_CASE("a file is known by its bytes, whatever it is called", "[contract]") {
  const Folder folder;
  const std::string rows = "1,2\n3,4\n5,6\n";
  write_file("t.csv", rows);
  write_file("copy/of.csv", rows);
  const auto csv = [](const std::string& path) {
    return hash_of_train("type: csv, train: " + path + ", targets: [1], task: regression");
  };
  const std::uint64_t hash = csv("t.csv");
  CHECK(csv("copy/of.csv") == hash);
  CHECK(csv(folder.path() + "/t.csv") == hash);
  for (const char* other : {"3,4\n1,2\n5,6\n", "2,1\n4,3\n6,5\n", "1,2\n3,4\n5,7\n", "1,2\n3,4\n5,6\n\n"}) {
    write_file("t.csv", other);
    INFO(other);
    CHECK(csv("t.csv") != hash);
  }
  write_file("a.txt", "abcdefgh");
  const auto text = [](const std::string& more = "") {
    return hash_of_train("type: text, train: a.txt, context: 4" + more);
  };
  const std::uint64_t whole = text();
  CHECK(text(", max_bytes: 6") != whole);  // of what was read
  write_file("a.txt", "abcdefgi");
  CHECK(text() != whole);
}

TEST_CASE("files are recorded in the order in which they were read; of made-up samples the config says all",
          "[contract]") {
  const Folder folder;
  write_file("b.txt", "bbbb");
  write_file("a.txt", "aaaaaa");
  write_file("e.txt", "eeeee");
  const DataRecord record = *open("type: text, train: '[ab].txt', eval: e.txt, context: 4").record;
  REQUIRE(record.train.size() == 2);
  CHECK(record.train[0].path == "a.txt");
  CHECK(record.train[0].size == 6);
  CHECK(record.train[1].path == "b.txt");
  REQUIRE(record.eval.size() == 1);
  CHECK(record.eval[0].path == "e.txt");
  const DataSplits made = open("type: synthetic, task: regression, inputs: 2, outputs: 1, samples: 8");
  REQUIRE(made.record);
  CHECK(made.record->train.empty());
}

TEST_CASE("who only evaluates does not open the training files", "[contract]") {
  const Folder folder;
  write_file("e.csv", "a,b,y\n1,2,3\n4,5,6\n");
  write_file("e.txt", "abcdefgh");
  DataContext context;
  context.trained = TrainedOn{17, {}};
  for (const char* data : {"type: csv, train: gone.csv, eval: e.csv, targets: [y], task: regression",
                           "type: text, train: gone.txt, eval: e.txt, context: 3"}) {
    INFO(data);
    CHECK(error_of(data) != "no error");
    const DataSplits splits = open(data, context);
    CHECK(splits.eval->size() == 2);
    CHECK(splits.train->size() == 17);
    CHECK(entry_texts(*splits.train, 5) == entry_texts(*splits.eval, 5));
    CHECK_THROWS_WITH(splits.train->read({0}), Catch::Contains("was not opened"));
  }
}

TEST_CASE("csv: what normalize taught is recorded, and takes the place of the training file", "[contract]") {
  const Folder folder;
  write_file("t.csv", "a,same,y\n1,7,10\n3,7,20\n5,7,30\n8,7,40\n");
  write_file("e.csv", "a,same,y\n4,8,50\n");
  const std::string data = "type: csv, train: t.csv, eval: e.csv, targets: [y], task: regression, normalize: true";
  const DataSplits splits = open(data);
  const std::vector<ColumnScaling> scaling = splits.record->scaling;
  REQUIRE(scaling.size() == 2);
  CHECK(scaling[0].column == "a");
  CHECK(scaling[0].mean == 4.25);
  CHECK(scaling[1].deviation == 0);
  const std::vector<float> x = values<float>(splits.eval->read({0})[0]);

  DataContext context;
  context.trained = TrainedOn{4, *splits.record};
  write_file("t.csv", "a,same,y\n100,7,10\n300,7,20\n");
  CHECK(values<float>(open(data, context).eval->read({0})[0]) == x);
  CHECK(values<float>(open(data).eval->read({0})[0]) != x);
  const DataSplits again = open(data).taught_by(*splits.record);
  CHECK(values<float>(again.eval->read({0})[0]) == x);
  CHECK((again.record->scaling == scaling));
  CHECK(again.record->train[0].hash == open(data).record->train[0].hash);
  std::filesystem::remove("t.csv");
  CHECK(values<float>(open(data, context).eval->read({0})[0]) == x);

  write_file("e.csv", "same,a,y\n4,8,50\n");
  CHECK(error_of(data, context) ==
        "e.csv: got 3 columns (same, a, y), expected 3 columns (a, same, y) as in the training data of the checkpoint");
  write_file("e.csv", "4,8,9,50\n");
  context.trained->record.columns.clear();
  CHECK(error_of("type: csv, train: t.csv, eval: e.csv, targets: [3], task: regression, normalize: true", context) ==
        "e.csv: got 3 features, expected 2, of which the checkpoint has the scaling");
}

// ---- the registry

TEST_CASE("a data type that does not exist is named, with the nearest one", "[contract]") {
  CHECK(error_of("type: txt") ==
        "job.yaml:1:14: data.type: got txt, expected one of text, csv, synthetic; did you mean 'text'?");
  CHECK(error_of("train: a") == "job.yaml:1:7: data.type: missing, expected one of text, csv, synthetic");
  for (const DataReader& reader : data_readers()) CHECK_FALSE(reader.summary.empty());
}

// ---- the sampler

TEST_CASE("every epoch is a permutation, and epochs and seeds differ", "[contract]") {
  for (const std::int64_t size : {1, 2, 3, 10, 257}) {
    std::vector<std::int64_t> expected(static_cast<std::size_t>(size));
    std::iota(expected.begin(), expected.end(), 0);
    Sampler sampler(size, 7);
    for (std::int64_t epoch = 0; epoch < 4; ++epoch) {
      std::vector<std::int64_t> order = sampler.batch(epoch * size, size);
      std::sort(order.begin(), order.end());
      CHECK(order == expected);
    }
  }
  Sampler one(257, 1), two(257, 2);
  CHECK(one.batch(0, 257) != two.batch(0, 257));
  CHECK(one.batch(0, 257) != one.batch(257, 257));
}

TEST_CASE("the order of samples is fixed for ever", "[contract]") {
  CHECK(Sampler(8, 1).batch(0, 8) == std::vector<std::int64_t>{2, 1, 4, 0, 6, 7, 5, 3});
  CHECK(Sampler(8, 1).batch(8, 8) == std::vector<std::int64_t>{2, 3, 6, 7, 5, 4, 0, 1});
}

TEST_CASE("the last batch of an epoch is short, and no batch straddles epochs", "[contract]") {
  Sampler sampler(10, 3);
  std::vector<std::size_t> sizes;
  std::multiset<std::int64_t> seen;
  for (std::int64_t position = 0; position < 20;) {
    const auto batch = sampler.batch(position, 4);
    sizes.push_back(batch.size());
    seen.insert(batch.begin(), batch.end());
    position += static_cast<std::int64_t>(batch.size());
  }
  CHECK(sizes == std::vector<std::size_t>{4, 4, 2, 4, 4, 2});
  for (std::int64_t sample = 0; sample < 10; ++sample) CHECK(seen.count(sample) == 2);
  CHECK(Sampler(3, 1).batch(0, 100).size() == 3);
}

TEST_CASE("a run resumed at any position sees the same batches", "[contract]") {
  Sampler straight(23, 5);
  for (std::int64_t position = 0; position < 3 * 23; ++position) {
    const auto expected = straight.batch(position, 4);
    CHECK(Sampler(23, 5).batch(position, 4) == expected);
  }
  CHECK(straight.batch(1, 4) == Sampler(23, 5).batch(1, 4));  // backwards, too
}

TEST_CASE("the samples of a step are those that a run comes to", "[contract]") {
  for (const std::int64_t rows : {3, 4, 10, 12}) {
    Sampler sampler(10, 5);
    std::int64_t position = 0;
    for (std::int64_t step = 1; step <= 12; ++step) {
      const auto batch = sampler.batch(position, rows);
      CHECK(Sampler(10, 5).of_step(step, rows) == batch);
      position += static_cast<std::int64_t>(batch.size());
    }
  }
}

TEST_CASE("the first sample of an epoch is any sample, equally often", "[contract]") {
  constexpr int size = 5, epochs = 5000;
  std::vector<int> count(size);
  Sampler sampler(size, 11);
  for (int epoch = 0; epoch < epochs; ++epoch) ++count[static_cast<std::size_t>(sampler.batch(epoch * size, 1)[0])];
  for (const int seen : count) CHECK(std::abs(seen - epochs / size) < 150);  // 5 standard deviations: 141
}

// ---- text

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

// ---- csv

TEST_CASE("csv: features in file order, targets in the order asked for", "[contract]") {
  const Folder folder;
  write_file("t.csv", "\xef\xbb\xbfy1,a,\"b, or \"\"c\"\"\" , y2\r\n1,2,3,4\r\n\r\n -5 ,+6.5,7e-1,\t.25");
  const DataSplits splits = open("type: csv, train: t.csv, targets: [y2, 0], task: regression");
  const Dataset& data = *splits.train;
  CHECK(splits.eval == nullptr);
  CHECK(data.size() == 2);
  CHECK(entry_texts(data, 5) == std::vector<std::string>{"x Float [5, 2]", "targets Float [5, 2]"});
  check_keeps_its_word(data, {1, 0, 1});
  const Tensors read = data.read({1, 0});
  CHECK(values<float>(read[0]) == std::vector<float>{6.5F, 0.7F, 2, 3});
  CHECK(values<float>(read[1]) == std::vector<float>{.25F, -5, 4, 1});
  CHECK(open("type: csv, train: t.csv, targets: ['b, or \"c\"'], task: regression").train->entries(1)[0].sizes ==
        std::vector<std::int64_t>{1, 3});
}

TEST_CASE("csv: classes are whole numbers", "[contract]") {
  const Folder folder;
  write_file("t.csv", "0.5;2\n1.5;0\n2.5;1.0\n");
  const auto data = open("type: csv, train: t.csv, targets: [1], task: classification, delimiter: ';'").train;
  CHECK(entry_texts(*data, 2) == std::vector<std::string>{"x Float [2, 1]", "targets Long [2]"});
  check_keeps_its_word(*data, {2, 1});
  const Tensors read = data->read({2, 0, 1});
  CHECK(values<float>(read[0]) == std::vector<float>{2.5F, 0.5F, 1.5F});
  CHECK(values<std::int64_t>(read[1]) == std::vector<std::int64_t>{1, 2, 0});
}

TEST_CASE("csv: a header is a first line without a number, unless told otherwise", "[contract]") {
  const Folder folder;
  write_file("names.csv", "a,b\n1,2\n");
  write_file("years.csv", "2019,2020\n1,2\n");
  write_file("tabs.csv", "1\t2\n3\t4\n");
  CHECK(open("type: csv, train: names.csv, targets: [b], task: regression").train->size() == 1);
  CHECK(open("type: csv, train: years.csv, targets: [1], task: regression").train->size() == 2);
  CHECK(open("type: csv, train: years.csv, targets: [2020], task: regression, header: true").train->size() == 1);
  CHECK(open("type: csv, train: tabs.csv, targets: [1], task: regression, delimiter: \"\\t\"").train->size() == 2);
}

TEST_CASE("csv: normalize uses the training split's mean and deviation in both splits", "[contract]") {
  const Folder folder;
  write_file("t.csv", "a,same,y\n1,7,10\n3,7,20\n5,7,30\n7,7,40\n");
  write_file("e.csv", "a,same,y\n4,8,50\n");
  const DataSplits splits =
      open("type: csv, train: t.csv, eval: e.csv, targets: [y], task: regression, normalize: true");
  const auto scaled = [](double off) { return static_cast<float>(off / std::sqrt(5.0)); };  // 1 3 5 7: 4, sqrt(5)
  const Tensors train = splits.train->read(all_of(*splits.train));
  CHECK(values<float>(train[0]) == std::vector<float>{scaled(-3), 0, scaled(-1), 0, scaled(1), 0, scaled(3), 0});
  CHECK(values<float>(train[1]) == std::vector<float>{10, 20, 30, 40});
  CHECK(values<float>(splits.eval->read({0})[0]) == std::vector<float>{0, 1});
}

TEST_CASE("csv: normalize keeps what float32 cannot hold, and can go on as it was before", "[contract]") {
  const Folder folder;
  // float32 has steps of 128 at 1.7e9, and 0.1 is not 0.1f.
  std::string text = "time,tenth,y\n";
  for (int i = 0; i < 8; ++i) text += concat(1700000000 + i, ",", 0.1 * (i % 3), ",0\n");
  write_file("t.csv", text);
  const DataSplits splits = open("type: csv, train: t.csv, targets: [y], task: regression, normalize: true");
  CHECK(splits.arithmetic == "float64");
  const std::vector<float> x = values<float>(splits.train->read(all_of(*splits.train))[0]);
  for (int i = 0; i < 8; ++i)  // 0 to 7: mean 3.5, deviation sqrt(5.25)
    CHECK(x[static_cast<std::size_t>(2 * i)] == static_cast<float>((i - 3.5) / std::sqrt(5.25)));

  const DataSplits before = splits.unrecorded();
  CHECK(before.arithmetic.empty());
  CHECK_FALSE(before.unrecorded);
  const std::vector<float> old = values<float>(before.train->read(all_of(*before.train))[0]);
  double mean = 0, square = 0;
  for (int i = 0; i < 8; ++i) mean += static_cast<float>(0.1 * (i % 3));
  mean /= 8;
  for (int i = 0; i < 8; ++i)
    square += (static_cast<float>(0.1 * (i % 3)) - mean) * (static_cast<float>(0.1 * (i % 3)) - mean);
  for (int i = 0; i < 8; ++i) {
    CHECK(old[static_cast<std::size_t>(2 * i)] == 0);
    CHECK(old[static_cast<std::size_t>(2 * i + 1)] ==
          static_cast<float>((static_cast<float>(0.1 * (i % 3)) - mean) / std::sqrt(square / 8)));
  }
  const DataSplits plain = open("type: csv, train: t.csv, targets: [y], task: regression");
  CHECK(plain.arithmetic.empty());
  CHECK_FALSE(plain.unrecorded);
}

TEST_CASE("csv: a constant feature becomes 0, whatever its digits", "[contract]") {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += concat("14.62,", i % 7, ",0\n");
  write_file("t.csv", text);
  const auto data = open("type: csv, train: t.csv, targets: [2], task: regression, normalize: true").train;
  const std::vector<float> x = values<float>(data->read(all_of(*data))[0]);
  for (std::size_t i = 0; i < x.size(); i += 2) CHECK(x[i] == 0);
}

TEST_CASE("csv: a first line of numbers that looks like names is a sample, with a note", "[contract]") {
  const Folder folder;
  const auto notes = [](const std::string& text, const std::string& more = "") {
    write_file("t.csv", text);
    return open("type: csv, train: t.csv, targets: [1], task: regression" + more).notes;
  };
  const auto note = [](const std::string& line) {
    return std::vector<std::string>{"t.csv: the first line ('" + line +
                                    "') is taken for a sample, but looks like names of "
                                    "columns: write header: true if it is, header: false if it is not"};
  };
  CHECK(notes("0,1,2\n3,1,7\n4,4,4\n") == note("0,1,2"));
  CHECK(notes("2019,2020,2021\n3,1,7\n") == note("2019,2020,2021"));
  CHECK(notes("0,1\n3.5,0.25\n4,1e-3\n") == note("0,1"));
  CHECK(notes("5,17,4\n3.5,1,7\n4.0,1,7\n") == note("5,17,4"));
  // Samples like any other.
  CHECK(notes("1,2,3\n4,5,6\n").empty());
  CHECK(notes("0,1\n1,0\n").empty());
  CHECK(notes("5,17,4\n3,1,7\n4,1,7\n").empty());
  CHECK(notes("5,5,4\n3.5,1,7\n").empty());
  CHECK(notes("0.5,1,2\n3.5,1,7\n").empty());
  CHECK(notes("0,1,2\n").empty());
  CHECK(notes("a,b,c\n0,1,2\n").empty());
  // Said by hand.
  CHECK(notes("0,1,2\n3,1,7\n4,4,4\n", ", header: true").empty());
  CHECK(notes("0,1,2\n3,1,7\n4,4,4\n", ", header: false").empty());
  write_file("e.csv", "0,1,2\n3,1,7\n");
  CHECK(notes("1,2,3\n4,5,6\n", ", eval: e.csv").size() == 1);
}

TEST_CASE("csv: a feature without a name is noted", "[contract]") {
  const Folder folder;
  write_file("t.csv", ",a,y\n0,5,6\n1,7,8\n");
  const DataSplits splits = open("type: csv, train: t.csv, targets: [y], task: regression");
  CHECK(splits.notes ==
        std::vector<std::string>{
            "t.csv: column 0 has no name and is taken for a feature; if it only numbers the rows (pandas "
            "writes such a column unless told index=False), remove it"});
  CHECK(open("type: csv, train: t.csv, targets: [0], task: regression").notes.empty());
}

TEST_CASE("csv: a sample knows its line, and all of them can be looked at", "[contract]") {
  const Folder folder;
  write_file("t.csv", "a,y\n\n1,2\n3,4\n\n5,6\n");
  const auto data = open("type: csv, train: t.csv, targets: [y], task: regression").train;
  CHECK(data->place_of(0) == "t.csv:3");
  CHECK(data->place_of(2) == "t.csv:6");
  CHECK(values<float>(data->all().at(1)) == std::vector<float>{2, 4, 6});
}

TEST_CASE("csv: what is no text of lines and cells is refused with the reason and what to do", "[contract]") {
  const Folder folder;
  using namespace std::string_literals;
  const std::string table = "a,b,y\n1,2,3\n4,5,6\n7,8,9\n";
  const auto wide = [&](const std::string& before, const std::string& after, const std::string& mark) {
    std::string text = mark;
    for (const char c : table) text += before + c + after;
    return text;
  };
  const auto refused = [](const std::string& bytes) {
    write_file("t.csv", bytes);
    return error_of("type: csv, train: t.csv, targets: [y], task: regression");
  };
  const std::string utf16 = "t.csv: got text in UTF-16, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8";
  const std::string utf32 = "t.csv: got text in UTF-32, expected UTF-8; convert it: iconv -f UTF-32 -t UTF-8";
  CHECK(refused(wide("", "\0"s, "\xff\xfe")) == utf16);
  CHECK(refused(wide("\0"s, "", "\xfe\xff")) == utf16);
  CHECK(refused(wide("", "\0"s, "")) == utf16);
  CHECK(refused(wide("\0"s, "", "")) == utf16);
  CHECK(refused(wide("", "\0\0\0"s, "\xff\xfe\0\0"s)) == utf32);
  CHECK(refused(wide("\0\0\0"s, "", "\0\0\xfe\xff"s)) == utf32);
  CHECK(refused(wide("", "\0\0\0"s, "")) == utf32);
  CHECK(refused("\x1f\x8b\x08\0\0\0"s) == "t.csv: got gzip-compressed data, expected text; unpack it first: gunzip");
  CHECK(refused("\x28\xb5\x2f\xfd\x04\0"s) ==
        "t.csv: got zstd-compressed data, expected text; unpack it first: unzstd");
  CHECK(refused("PK\x03\x04\x14\0"s) ==
        "t.csv: got a zip archive (or a spreadsheet: .xlsx, .ods), expected text; unpack "
        "it, or export the table as CSV");
  CHECK(refused("PAR1\x15\0\x15"s) == "t.csv: got a Parquet file, expected text; export the table as CSV");
  CHECK(refused("a,b,y\n1,2,3\n4,\0,6\n"s) == "t.csv: got binary data (a zero byte at byte 14), expected text");
  CHECK(refused("a,b,y\r1,2,3\r") ==
        "t.csv: got lines that end with CR alone, expected LF or CRLF; convert them: tr '\\r' '\\n'");
  CHECK(refused("PAR1,b,y\n1,2,3\n") == "no error");
  CHECK(refused("a;b;y\n1;2;3\n") ==
        "t.csv:1: got a line without ',', the delimiter, but with ';'; write delimiter: ';'");
  CHECK(refused("a\tb\ty\n1\t2\t3\n") ==
        "t.csv:1: got a line without ',', the delimiter, but with \"\\t\"; write delimiter: \"\\t\"");
  write_file("t.csv", "a;b;y\n0,5;1,5;3\n");
  CHECK(error_of("type: csv, train: t.csv, targets: [y], task: regression, delimiter: ';'") ==
        "t.csv:2:1: column 'a': got '0,5', expected a number; decimals are written with a point");
}

TEST_CASE("csv: a wrong cell is named by file, line and column", "[contract]") {
  const Folder folder;
  const std::string options = "type: csv, train: t.csv, targets: [y], task: regression";
  const std::vector<Bad> cases = {
      {"a,y\n1,2\n3,x\n", "t.csv:3:3: column 'y': got 'x', expected a number"},
      {"a,y\n1,2\n,4\n", "t.csv:3:1: column 'a': got an empty cell, expected a number"},
      {"a,y\n\n1, \n", "t.csv:3:3: column 'y': got an empty cell, expected a number"},
      {"a,y\n10,NaN\n", "t.csv:2:4: column 'y': got 'NaN', expected a finite number"},
      {"a,y\n-inf,1\n", "t.csv:2:1: column 'a': got '-inf', expected a finite number"},
      {"a,y\n1e39,1\n", "t.csv:2:1: column 'a': got '1e39', expected a number that float32 can hold"},
      {"a,y\n1e999,1\n", "t.csv:2:1: column 'a': got '1e999', expected a number that float32 can hold"},
      {"a,y\n1,2,3\n", "t.csv:2:5: got 3 cells, expected 2 as in the first line"},
      {"a,y,z\n1,2\n", "t.csv:2:4: got 2 cells, expected 3 as in the first line"},
      {"a,y\n1,0x10\n", "t.csv:2:3: column 'y': got '0x10', expected a number"},
      {"a,y\n1,\"2\"\n", "t.csv:2:3: column 'y': got '\"2\"', expected a number; numbers stand without quotes"},
      {"a,y\n1,gr\xf6\xdf\n", "t.csv:2:3: column 'y': got 'gr\\xf6\\xdf', expected a number"},
      {"a,y\n1,+-2\n", "t.csv:2:3: column 'y': got '+-2', expected a number"},
      {"a,y\n1,1 000\n", "t.csv:2:3: column 'y': got '1 000', expected a number"},
      {"a,y\n", "t.csv: got no rows, expected at least one"},
      {"", "t.csv: got an empty file, expected rows of numbers"},
      {"\n \r\n", "t.csv: got an empty file, expected rows of numbers"},
  };
  for (const Bad& bad : cases) {
    write_file("t.csv", bad.data);
    CHECK(error_of(options) == bad.message);
  }
  write_file("t.csv", "a,2\n1,2\n");
  CHECK(error_of("type: csv, train: t.csv, targets: [0], task: regression") ==
        "t.csv:1:1: column 0 (from 0): got 'a', expected a number; if line 1 holds names, write header: true");
  for (const char* wrong : {"-1", "1.5", "3000000000"}) {
    write_file("t.csv", concat("a,y\n1,0\n2,", wrong, "\n"));
    CHECK(error_of("type: csv, train: t.csv, targets: [y], task: classification") ==
          concat("t.csv:3:3: column 'y': got '", wrong, "', expected a class index: 0, 1, 2, ..."));
  }
}

TEST_CASE("csv: wrong options are named", "[contract]") {
  const Folder folder;
  write_file("t.csv", "alpha,beta,y,y\n1,2,3,4\n");
  write_file("plain.csv", "1,2\n");
  write_file("e.csv", "alpha,gamma,y,y\n1,2,3,4\n");
  const std::vector<Bad> cases = {
      {"type: csv, train: no.csv, targets: [y], task: regression",
       "no.csv: cannot be read: No such file or directory (working folder: " + folder.path() + ")"},
      {"type: csv, train: /, targets: [y], task: regression", "/: cannot be read: Is a directory"},
      {"type: csv, train: t.csv, targets: [bta], task: regression",
       "job.yaml:1:42: data.targets: got 'bta', which is no column of t.csv, expected one of alpha, beta, y, y, or a "
       "number from 0 to 3; did you mean 'beta'?"},
      {"type: csv, train: t.csv, targets: [4], task: regression",
       "job.yaml:1:42: data.targets: got '4', which is no column of t.csv, expected one of alpha, beta, y, y, or a "
       "number from 0 to 3"},
      {"type: csv, train: plain.csv, targets: [y], task: regression",
       "job.yaml:1:46: data.targets: got 'y', which is no column of plain.csv, expected a number from 0 to 1 (the file "
       "has no header)"},
      {"type: csv, train: t.csv, targets: [y], task: regression",
       "job.yaml:1:42: data.targets: got 'y', the name of 2 columns of t.csv, expected one column; write its 0-based "
       "number"},
      {"type: csv, train: t.csv, targets: [beta, 1], task: regression",
       "job.yaml:1:42: data.targets: got column '1' twice, expected it once"},
      {"type: csv, train: plain.csv, targets: [0, 1], task: regression",
       "job.yaml:1:46: data.targets: got all 2 columns of plain.csv, expected at least one to be left as a feature"},
      {"type: csv, train: t.csv, eval: e.csv, targets: [0], task: regression",
       "e.csv: got 4 columns (alpha, gamma, y, y), expected 4 columns (alpha, beta, y, y) as in t.csv"},
      {"type: csv, train: t.csv, eval: plain.csv, targets: [0], task: regression",
       "plain.csv: got 2 columns, expected 4 columns (alpha, beta, y, y) as in t.csv"},
      {"type: csv, train: t.csv, targets: [], task: regression",
       "job.yaml:1:42: data.targets: got [], expected at least one column"},
      {"type: csv, train: t.csv, targets: [0, 1], task: classification",
       "job.yaml:1:42: data.targets: got [0, 1], expected one column, which holds the class"},
      {"type: csv, train: t.csv, task: regression", "job.yaml:1:7: data.targets: missing, expected a list"},
      {"type: csv, train: t.csv, targets: [0], task: regresion",
       "job.yaml:1:53: data.task: got regresion, expected one of regression, classification; did you mean "
       "'regression'?"},
      {"type: csv, train: t.csv, targets: [0], task: regression, delimiter: ', '",
       "job.yaml:1:76: data.delimiter: got \", \", expected one character that no number contains"},
      {"type: csv, train: t.csv, targets: [0], task: regression, header: maybe",
       "job.yaml:1:73: data.header: got maybe, expected one of auto, true, false"},
  };
  for (const Bad& bad : cases) CHECK(error_of(bad.data) == bad.message);
}

// ---- synthetic

TEST_CASE("synthetic: shapes and types of every task", "[contract]") {
  const auto texts = [](const std::string& options) {
    return entry_texts(*open("type: synthetic, " + options).train, 2);
  };
  CHECK(texts("samples: 9, task: regression, inputs: 5, outputs: 3") ==
        std::vector<std::string>{"x Float [2, 5]", "targets Float [2, 3]"});
  CHECK(texts("samples: 9, task: classification, inputs: 5, outputs: 3") ==
        std::vector<std::string>{"x Float [2, 5]", "targets Long [2]"});
  CHECK(texts("samples: 9, task: tokens, context: 6, vocab: 11") ==
        std::vector<std::string>{"x Long [2, 6]", "targets Long [2, 6]"});
  CHECK(texts("samples: 9, task: image_classification, size: 7, channels: 3, classes: 4") ==
        std::vector<std::string>{"x Float [2, 3, 7, 7]", "targets Long [2]"});
  CHECK(texts("samples: 9, task: segmentation, size: 7, classes: 4") ==
        std::vector<std::string>{"x Float [2, 1, 7, 7]", "targets Long [2, 7, 7]"});
}

TEST_CASE("synthetic: a sample is a function of seed, split and index", "[contract]") {
  const std::vector<std::string> tasks = {"task: regression, inputs: 5, outputs: 3, noise: 0.5",
                                          "task: classification, inputs: 5, outputs: 3, noise: 0.5",
                                          "task: tokens, context: 6, vocab: 1000, noise: 0.5",
                                          "task: image_classification, size: 8, classes: 3, noise: 0.5",
                                          "task: segmentation, size: 8, channels: 2, classes: 3, noise: 0.5"};
  for (const std::string& task : tasks) {
    const DataSplits splits = open("type: synthetic, samples: 9, eval_samples: 4, " + task, {.seed = 3, .context = 0});
    CHECK(splits.train->size() == 9);
    CHECK(splits.eval->size() == 4);
    check_keeps_its_word(*splits.train, {8, 0, 8});
    const Tensors together = splits.train->read({2, 7});
    // Not made in advance (beyond 64 MiB), and with other neighbours: the same sample.
    const auto large = open("type: synthetic, samples: 4000000, " + task, {.seed = 3, .context = 0}).train;
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(splits.train->read({7})[i][0].equal(together[i][1]));
      CHECK(large->read({7})[i][0].equal(together[i][1]));
    }
    const auto other_seed = open("type: synthetic, samples: 9, " + task, {.seed = 4, .context = 0}).train;
    CHECK_FALSE(other_seed->read({7})[0].equal(splits.train->read({7})[0]));
    CHECK_FALSE(splits.eval->read({2})[0].equal(splits.train->read({2})[0]));
    CHECK_FALSE(splits.train->read({3})[0].equal(splits.train->read({2})[0]));
  }
}

TEST_CASE("synthetic: inputs are standard normal", "[contract]") {
  const auto data = open("type: synthetic, samples: 20000, task: regression, inputs: 4, outputs: 1").train;
  const std::vector<float> x = values<float>(data->read(all_of(*data))[0]);
  const auto n = static_cast<double>(x.size());
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  const double square = std::inner_product(x.begin(), x.end(), x.begin(), 0.0) / n;
  CHECK(std::abs(mean) < 5 / std::sqrt(n));
  CHECK(std::abs(square - 1) < 5 * std::sqrt(2 / n));
}

TEST_CASE("synthetic: noise is added to the same teacher", "[contract]") {
  const std::string task = "type: synthetic, samples: 5000, task: regression, inputs: 4, outputs: 2";
  const auto clean = open(task).train, noisy = open(task + ", noise: 0.25").train;
  const std::vector<std::int64_t> first = {0};
  CHECK(clean->read(first)[0].equal(noisy->read(first)[0]));
  const auto all = all_of(*clean);
  const std::vector<float> a = values<float>(clean->read(all)[1]), b = values<float>(noisy->read(all)[1]);
  double square = 0;
  for (std::size_t i = 0; i < a.size(); ++i) square += (a[i] - b[i]) * (a[i] - b[i]);
  CHECK(std::abs(std::sqrt(square / static_cast<double>(a.size())) - 0.25) < 0.01);
}

TEST_CASE("synthetic: classes all occur, and noise replaces its share", "[contract]") {
  const std::string task = "type: synthetic, samples: 5000, task: classification, inputs: 6, outputs: 4";
  const auto clean = open(task).train, noisy = open(task + ", noise: 0.4").train;
  const auto all = all_of(*clean);
  const auto a = values<std::int64_t>(clean->read(all)[1]), b = values<std::int64_t>(noisy->read(all)[1]);
  CHECK(std::set<std::int64_t>(a.begin(), a.end()) == std::set<std::int64_t>{0, 1, 2, 3});
  int changed = 0;
  for (std::size_t i = 0; i < a.size(); ++i) changed += a[i] != b[i] ? 1 : 0;
  CHECK(std::abs(changed / 5000.0 - 0.4 * 3 / 4) < 0.03);
}

TEST_CASE("synthetic: without noise every token has one successor, on one cycle, in both splits", "[contract]") {
  const DataSplits splits =
      open("type: synthetic, samples: 50, eval_samples: 50, task: tokens, context: 12, vocab: 10");
  std::vector<std::int64_t> successor(10, -1);
  for (const auto& data : {splits.train, splits.eval}) {
    const Tensors read = data->read(all_of(*data));
    const auto x = values<std::int64_t>(read[0]), targets = values<std::int64_t>(read[1]);
    for (std::size_t i = 0; i < x.size(); ++i) {
      std::int64_t& next = successor.at(static_cast<std::size_t>(x[i]));
      if (next < 0) next = targets[i];
      CHECK(next == targets[i]);
      if (i % 12 != 11) CHECK(x[i + 1] == targets[i]);
    }
  }
  std::set<std::int64_t> cycle;
  for (std::int64_t token = 0; cycle.insert(token).second;) token = successor[static_cast<std::size_t>(token)];
  CHECK(cycle.size() == 10);
}

TEST_CASE("synthetic: an image of a class shows its pattern, somewhere on nothing", "[contract]") {
  const DataSplits splits =
      open("type: synthetic, samples: 300, eval_samples: 300, task: image_classification, size: 9, classes: 3");
  std::map<std::int64_t, at::Tensor> pattern;
  std::set<std::pair<std::int64_t, std::int64_t>> places;
  for (const auto& data : {splits.train, splits.eval}) {
    const Tensors read = data->read(all_of(*data));
    for (std::int64_t i = 0; i < data->size(); ++i) {
      const at::Tensor image = read[0][i][0], lit = image.ne(0).nonzero();
      REQUIRE(lit.size(0) == 25);
      const auto top = lit[0][0].item<std::int64_t>(), left = lit[0][1].item<std::int64_t>();
      places.insert({top, left});
      const at::Tensor shown = image.narrow(0, top, 5).narrow(1, left, 5);
      const auto [known, is_new] = pattern.emplace(read[1][i].item<std::int64_t>(), shown);
      CHECK(known->second.equal(shown));
    }
  }
  CHECK(pattern.size() == 3);
  CHECK(places.size() == 25);
}

TEST_CASE("synthetic: a pixel of a class has its colour, and classes cover each other in order", "[contract]") {
  const auto data = open("type: synthetic, samples: 200, task: segmentation, size: 8, channels: 2, classes: 3").train;
  const Tensors read = data->read(all_of(*data));
  const at::Tensor pixels = read[0].permute({0, 2, 3, 1}).reshape({-1, 2}), classes = read[1].flatten();
  std::map<std::int64_t, at::Tensor> colour = {{0, at::zeros({2})}};
  for (std::int64_t i = 0; i < classes.size(0); ++i) {
    const auto [known, is_new] = colour.emplace(classes[i].item<std::int64_t>(), pixels[i]);
    CHECK(known->second.equal(pixels[i]));
  }
  CHECK(colour.size() == 3);
  // The last class covers the others: a whole rectangle of 2 to 4 pixels high and wide.
  for (std::int64_t i = 0; i < data->size(); ++i) {
    const at::Tensor last = read[1][i].eq(2).nonzero();
    const at::Tensor extent = std::get<0>(last.max(0)) - std::get<0>(last.min(0)) + 1;
    CHECK(last.size(0) == extent.prod().item<std::int64_t>());
    CHECK(extent.ge(2).all().item<bool>());
    CHECK(extent.le(4).all().item<bool>());
  }
}

TEST_CASE("synthetic: keys of another task and senseless values are refused", "[contract]") {
  const std::vector<Bad> cases = {
      {"type: synthetic, task: regression, inputs: 2, outputs: 1",
       "job.yaml:1:7: data.samples: missing, expected an integer >= 1"},
      {"type: synthetic, samples: 0, task: regression, inputs: 2, outputs: 1",
       "job.yaml:1:34: data.samples: got 0, expected an integer >= 1"},
      {"type: synthetic, samples: 1, task: token",
       "job.yaml:1:43: data.task: got token, expected one of regression, classification, tokens, "
       "image_classification, segmentation; did you mean 'tokens'?"},
      {"type: synthetic, samples: 1, task: segmentation, size: 4, classes: 1",
       "job.yaml:1:75: data.classes: got 1, expected an integer from 2 to 65536"},
      {"type: synthetic, samples: 1, task: regression, inputs: 2, outputs: 1, vocab: 4",
       "job.yaml:1:78: data.vocab: got an unknown key, expected one of type, samples, eval_samples, task, noise, "
       "inputs, "
       "outputs"},
      {"type: synthetic, samples: 1, task: tokens, context: 2, vocab: 4, inputs: 2",
       "job.yaml:1:73: data.inputs: got an unknown key, expected one of type, samples, eval_samples, task, noise, "
       "context, vocab"},
      {"type: synthetic, samples: 1, task: tokens, vocab: 4",
       "job.yaml:1:7: data.context: missing, expected an integer from 1 to 16777216; this model has none that could be "
       "the default"},
      {"type: synthetic, samples: 1, task: tokens, context: 2, vocab: 1",
       "job.yaml:1:70: data.vocab: got 1, expected an integer from 2 to 16777216"},
      {"type: synthetic, samples: 1, task: classification, inputs: 2, outputs: 1",
       "job.yaml:1:79: data.outputs: got 1, expected an integer from 2 to 1048576"},
      {"type: synthetic, samples: 1, task: classification, inputs: 2, outputs: 2, noise: 1.5",
       "job.yaml:1:89: data.noise: got 1.5, expected a number from 0 to 1"},
      {"type: synthetic, samples: 1, task: regression, inputs: 2, outputs: 2, noise: -1",
       "job.yaml:1:85: data.noise: got -1, expected a number >= 0"},
  };
  for (const Bad& bad : cases) CHECK(error_of(bad.data) == bad.message);
}

}  // namespace lockstep
