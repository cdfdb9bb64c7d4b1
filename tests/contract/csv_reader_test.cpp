// SPDX-License-Identifier: Apache-2.0
//
// The csv reader: exact values, and the whole text of every error.
#include <cmath>

#include "tests/contract/data_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

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
            "writes such a column unless told index=False), remove it or write ignore: [\"0\"]"});
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
  CHECK_THAT(refused("\x1f\x8b\x08\0\0\0"s), Catch::StartsWith("t.csv: is damaged gzip-compressed data: "));
  CHECK_THAT(refused("\x28\xb5\x2f\xfd\x04\0"s), Catch::StartsWith("t.csv: is damaged zstd-compressed data: "));
  CHECK(refused("PK\x03\x04\x14\0"s) ==
        "t.csv: got a zip archive (or a spreadsheet: .xlsx, .ods), expected text; unpack "
        "it, or export the table as CSV");
  CHECK(refused("PAR1\x15\0\x15"s) ==
        "t.csv: got a Parquet file, expected text; read it with type: table, or export the table as CSV");
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
        "t.csv:2: column 'a': got '0,5', expected a number; decimals are written with a point");
}

TEST_CASE("csv: a wrong cell is named by file, line and column", "[contract]") {
  const Folder folder;
  const std::string options = "type: csv, train: t.csv, targets: [y], task: regression";
  const std::vector<Bad> cases = {
      {"a,y\n1,2\n3,x\n", "t.csv:3: column 'y': got 'x', expected a number"},
      {"a,y\n1,2\nx,3\n",
       "t.csv:3: column 'a': got 'x', expected a number; if the column holds names, write categories: [a]"},
      {"a,y\n1,2\n,4\n",
       "t.csv:3: column 'a': got an empty cell, expected a number; missing: {a: drop | mean | indicator | NUMBER} says "
       "what to do with such cells"},
      {"a,y\n\n1, \n",
       "t.csv:3: column 'y': got an empty cell, expected a number; a target is not filled; missing: {y: drop} leaves "
       "such "
       "rows out"},
      {"a,y\n10,NaN\n",
       "t.csv:2: column 'y': got 'NaN', expected a finite number; a target is not filled; missing: {y: drop} leaves "
       "such "
       "rows out"},
      {"a,y\n-inf,1\n", "t.csv:2: column 'a': got '-inf', expected a finite number"},
      {"a,y\n1e39,1\n", "t.csv:2: column 'a': got '1e39', expected a number that float32 can hold"},
      {"a,y\n1e999,1\n", "t.csv:2: column 'a': got '1e999', expected a number that float32 can hold"},
      {"a,y\n1,2,3\n", "t.csv:2: got 3 cells, expected 2 as in the first line"},
      {"a,y,z\n1,2\n", "t.csv:2: got 2 cells, expected 3 as in the first line"},
      {"a,y\n1,0x10\n", "t.csv:2: column 'y': got '0x10', expected a number"},
      {"a,y\n1, \"2\"\n", "t.csv:2: column 'y': got '\"2\"', expected a number; numbers stand without quotes"},
      {"a,y\n1,\"2\n",
       "t.csv:2: got a quote (\") that is not closed, expected another one; inside of quotes it is written "
       "twice"},
      {"a,y\n1,2\n\"3\n4\",5\n",
       "t.csv:3: column 'a': got '3 4', expected a number; if the column holds names, write "
       "categories: [a]"},
      {"a,y\n1,gr\xf6\xdf\n", "t.csv:2: column 'y': got 'gr\\xf6\\xdf', expected a number"},
      {"a,y\n1,+-2\n", "t.csv:2: column 'y': got '+-2', expected a number"},
      {"a,y\n1,1 000\n", "t.csv:2: column 'y': got '1 000', expected a number"},
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
        "t.csv:1: column 0 (from 0): got 'a', expected a number; if line 1 holds names, write header: true");
  for (const char* wrong : {"-1", "1.5", "3000000000"}) {
    write_file("t.csv", concat("a,y\n1,0\n2,", wrong, "\n"));
    CHECK(error_of("type: csv, train: t.csv, targets: [y], task: classification") ==
          concat("t.csv:3: column 'y': got '", wrong,
                 "', expected a class index: 0, 1, 2, ...; of names write categories: [y]"));
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
       "job.yaml:1:53: data.task: got regresion, expected one of regression, classification, next_token, forecast; did "
       "you mean "
       "'regression'?"},
      {"type: csv, train: t.csv, targets: [0], task: regression, delimiter: ', '",
       "job.yaml:1:76: data.delimiter: got \", \", expected one character that no number contains"},
      {"type: csv, train: t.csv, targets: [0], task: regression, header: maybe",
       "job.yaml:1:73: data.header: got maybe, expected one of auto, true, false"},
  };
  for (const Bad& bad : cases) CHECK(error_of(bad.data) == bad.message);
}
