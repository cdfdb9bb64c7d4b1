// SPDX-License-Identifier: Apache-2.0
//
// The table reader: formats, columns, kinds, missing cells, what is learnt; the whole text of every error.
#include <nlohmann/json.hpp>

#include "tests/contract/table_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

constexpr const char* kCsv = "a,b,color,y\n1,0.5,red,10\n2,1.5,blue,20\n4,2.5,red,30\n";
constexpr const char* kJson =
    "{\"a\": 1, \"b\": 0.5, \"color\": \"red\", \"y\": 10}\n"
    "{\"a\": 2, \"b\": 1.5, \"color\": \"blue\", \"y\": 20}\n"
    "{\"a\": 4, \"b\": 2.5, \"color\": \"red\", \"y\": 30}\n";

std::string regression(const std::string& file, const std::string& more = "") {
  return "type: table, train: " + file + ", targets: [y], task: regression" + more;
}

nlohmann::json learnt_by(const DataSplits& splits) {
  return nlohmann::json::parse(splits.record->learnt);
}

}  // namespace

TEST_CASE("table: one table in every format is the same samples and teaches the same", "[contract]") {
  const Folder folder;
  write_file("t.csv", kCsv);
  write_file("t.jsonl", kJson);
  write_file("text", kJson);
  write_packed("t.csv.gz", kCsv, arrow::Compression::GZIP);
  write_packed("t.csv.zst", kCsv, arrow::Compression::ZSTD);
  write_packed("packed", kJson, arrow::Compression::ZSTD);
  const ArrowTable table = table_of(kJson);
  write_parquet("t.parquet", table);
  write_parquet("groups.parquet", table, 1);
  write_arrow("t.feather", table, false);
  write_arrow("t.arrow", table, true, 2);
  const std::vector<float> x = {1, 0.5F, 0, 1, 2, 1.5F, 1, 0, 4, 2.5F, 0, 1};
  std::string learnt;
  for (const char* file : {"t.csv", "t.jsonl", "text", "t.csv.gz", "t.csv.zst", "packed", "t.parquet", "groups.parquet",
                           "t.feather", "t.arrow"}) {
    INFO(file);
    const DataSplits splits = open(regression(file));
    CHECK(entry_texts(*splits.train, 5) == std::vector<std::string>{"x Float [5, 4]", "targets Float [5, 1]"});
    check_keeps_its_word(*splits.train, {2, 0, 1});
    CHECK(x_of(*splits.train) == x);
    CHECK(targets_of<float>(*splits.train) == std::vector<float>{10, 20, 30});
    CHECK(splits.record->train[0].path == file);
    CHECK(splits.record->train[0].size == static_cast<std::int64_t>(std::filesystem::file_size(file)));
    if (learnt.empty()) learnt = splits.record->learnt;
    CHECK(splits.record->learnt == learnt);
  }
  CHECK(learnt ==
        R"({"columns":["a","b","color","y"],"kinds":{"color":"category"},"categories":{"color":["blue","red"]}})");
  CHECK(error_of(regression("t.parquet", ", format: csv")) ==
        "t.parquet: got a Parquet file, expected text; read it with type: table, or export the table as CSV");
}

TEST_CASE("table: several files are one table, in the order of their names, and every sample knows its place",
          "[contract]") {
  const Folder folder;
  write_file("d/2.csv", "a,y\n\n5,6\n\"7\",8\n");
  write_file("d/1.csv", "a,y\n1,2\n3,4\n");
  write_parquet("d/3.parquet", table_of("{\"y\": 10, \"more\": 0, \"a\": 9}\n"));
  write_file("d/4.jsonl", "\n{\"a\": 11, \"y\": 12}\n");
  const auto data = open(regression("'d/*'")).train;
  CHECK(x_of(*data) == std::vector<float>{1, 3, 5, 7, 9, 11});
  CHECK(targets_of<float>(*data) == std::vector<float>{2, 4, 6, 8, 10, 12});
  std::vector<std::string> places;
  for (std::int64_t i = 0; i < data->size(); ++i) places.push_back(data->place_of(i));
  CHECK(places == std::vector<std::string>{"d/1.csv:2", "d/1.csv:3", "d/2.csv:3", "d/2.csv:4",
                                           "d/3.parquet: row 0 (from 0)", "d/4.jsonl:2"});
  CHECK(x_of(regression("[d/2.csv, d/1.csv]")) == std::vector<float>{1, 3, 5, 7});
  CHECK(open(regression("'d/*'")).record->train.size() == 4);
  write_file("d/2.csv", "y,a\n5,6\n");
  CHECK(error_of(regression("'d/*.csv'")) == "d/2.csv: got 2 columns (y, a), expected 2 columns (a, y) as in d/1.csv");
  write_parquet("d/3.parquet", table_of("{\"y\": 10, \"b\": 9}\n"));
  CHECK(error_of(regression("[d/1.csv, d/3.parquet]")) ==
        "d/3.parquet: got no column 'a' among its 2 columns (y, b), expected it as in d/1.csv");
  CHECK(error_of(regression("'d/*.feather'")) ==
        concat("job.yaml:1:28: data.train: no file matches 'd/*.feather' (working folder: ", folder.path(), ")"));
  CHECK(error_of(regression("d")) == concat("d: cannot be read: Is a directory (working folder: ", folder.path(), ")"));
}

TEST_CASE("table: features are chosen and left out by name, number and pattern", "[contract]") {
  const Folder folder;
  write_file("t.csv", "id,x1,x2,z,y\n7,1,2,3,4\n");
  CHECK(x_of(regression("t.csv")) == std::vector<float>{7, 1, 2, 3});
  CHECK(x_of(regression("t.csv", ", ignore: [id]")) == std::vector<float>{1, 2, 3});
  CHECK(x_of(regression("t.csv", ", columns: ['x*']")) == std::vector<float>{1, 2});
  CHECK(x_of(regression("t.csv", ", columns: [z, 'x*', 1]")) == std::vector<float>{3, 1, 2});
  CHECK(x_of(regression("t.csv", ", columns: ['x*', id], ignore: [x2, 0]")) == std::vector<float>{1});
  CHECK(error_of(regression("t.csv", ", ignore: [idd]")) ==
        "job.yaml:1:75: data.ignore: got 'idd', which is no column of t.csv, expected one of id, x1, x2, z, y, or a "
        "number "
        "from 0 to 4; did you mean 'id'?");
  CHECK(error_of(regression("t.csv", ", columns: [y]")) ==
        "job.yaml:1:76: data.columns: got a target, column 4 of t.csv, expected features");
  CHECK(error_of(regression("t.csv", ", ignore: ['*']")) ==
        "job.yaml:1:75: data.ignore: got a target, column 4 of t.csv, expected other columns");
}

TEST_CASE("table: text is categories, one feature each, which the training set names", "[contract]") {
  const Folder folder;
  write_file("t.csv", "color,size,y\nred,10,1\ngreen,9,2\nred,10,3\n");
  write_file("e.csv", "color,size,y\ngreen,10,1\nblue,9,2\n");
  const std::string both = regression("t.csv", ", eval: e.csv, categories: [size]");
  CHECK(x_of(regression("t.csv", ", categories: [size]")) ==
        std::vector<float>{0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1});  // green red | 9 10
  CHECK(learnt_by(open(regression("t.csv", ", categories: ['s*']")))["categories"] ==
        nlohmann::json({{"color", {"green", "red"}}, {"size", {"9", "10"}}}));
  CHECK(error_of(both) ==
        "e.csv:3: column 'color': got 'blue', expected one of the 2 categories of the training data: green, red; "
        "unknown: "
        "zeros takes others for none of them");
  CHECK(x_of(*open(both + ", unknown: zeros").eval) == std::vector<float>{1, 0, 0, 1, 0, 0, 1, 0});
  std::string many = "c,y\n";
  for (int i = 0; i < 1001; ++i) many += concat("n", i, ",0\n");
  write_file("many.csv", many);
  CHECK(error_of(regression("many.csv")) ==
        "many.csv:1002: column 'c': got 'n1000', one of more than 1000 different texts, expected at most 1000 "
        "categories; "
        "leave the column out with ignore, or group them before");
  write_file("bad.csv", "c,y\nok,1\n\xff,2\n");
  CHECK(error_of(regression("bad.csv")) ==
        "bad.csv:3: column 'c': got '\\xff', expected UTF-8; convert the file: iconv -t UTF-8");
}

TEST_CASE("table: labels are classes, numbered in order, with names; indices stay what they are", "[contract]") {
  const Folder folder;
  write_file("t.csv", "a,kind\n1,dog\n2,cat\n3,dog\n");
  write_file("e.csv", "a,kind\n1,dog\n");
  const std::string section = "type: table, train: t.csv, eval: e.csv, targets: [kind], task: classification";
  const DataSplits splits = open(section);
  CHECK(entry_texts(*splits.train, 2) == std::vector<std::string>{"x Float [2, 1]", "targets Long [2]"});
  CHECK(targets_of<std::int64_t>(*splits.train) == std::vector<std::int64_t>{1, 0, 1});
  CHECK(targets_of<std::int64_t>(*splits.eval) == std::vector<std::int64_t>{1});
  CHECK(splits.class_names == std::vector<std::string>{"cat", "dog"});
  CHECK(splits.train->classes() == std::vector<std::int64_t>{1, 0, 1});
  CHECK(learnt_by(splits)["labels"] == nlohmann::json({{"kind", {"cat", "dog"}}}));
  write_file("e.csv", "a,kind\n1,cow\n");
  CHECK(error_of(section) ==
        "e.csv:2: column 'kind': got 'cow', expected one of the 2 labels of the training data: cat, dog");
  write_file("t.csv", "a,kind\n1,5\n2,3\n");
  CHECK(open("type: table, train: t.csv, targets: [kind], task: classification").class_names.empty());
  const DataSplits named = open("type: table, train: t.csv, targets: [kind], task: classification, categories: [kind]");
  CHECK(named.class_names == std::vector<std::string>{"3", "5"});
  CHECK(targets_of<std::int64_t>(*named.train) == std::vector<std::int64_t>{1, 0});
  // What Hugging Face's datasets say of a column of indices.
  auto table = table_of("{\"a\": 1, \"label\": 1}\n{\"a\": 2, \"label\": 0}\n");
  table = table->ReplaceSchemaMetadata(arrow::key_value_metadata(
      {{"huggingface", R"({"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}})"}}));
  write_arrow("hf.arrow", table, true);
  const DataSplits hf = open("type: table, train: hf.arrow, eval: hf.arrow, targets: [label], task: classification");
  CHECK(hf.class_names == std::vector<std::string>{"neg", "pos"});
  CHECK(targets_of<std::int64_t>(*hf.train) == std::vector<std::int64_t>{1, 0});
  CHECK(targets_of<std::int64_t>(*hf.eval) == std::vector<std::int64_t>{1, 0});
}

TEST_CASE("table: true and false are 1 and 0, dates are days", "[contract]") {
  const Folder folder;
  write_file("t.csv",
             "on,day,y\ntrue,1970-01-02,1\nFalse,2000-02-29T12:00:00,2\nTRUE,1969-12-31 06:00Z,3\n"
             "false,1970-01-01T00:00:00.5+01:00,4\n");
  const std::vector<float> days = {1, 11016.5F, -0.75F, static_cast<float>((0.5 - 3600) / 86400)};
  CHECK(x_of(regression("t.csv")) == std::vector<float>{1, days[0], 0, days[1], 1, days[2], 0, days[3]});
  CHECK(learnt_by(open(regression("t.csv")))["kinds"] == nlohmann::json({{"on", "boolean"}, {"day", "date"}}));
  const auto stamp = arrow::timestamp(arrow::TimeUnit::NANO);
  write_parquet("t.parquet", table_of("{\"on\": true, \"day\": \"1970-01-02\", \"y\": 1}\n"
                                      "{\"on\": false, \"day\": \"2000-02-29 12:00:00\", \"y\": 2}\n",
                                      {arrow::field("on", arrow::boolean()), arrow::field("day", stamp)}));
  CHECK(x_of(regression("t.parquet")) == std::vector<float>{1, days[0], 0, days[1]});
  write_file("bad.csv", "day,y\n2024-02-29,1\n2023-02-29,2\n");
  CHECK(error_of(regression("bad.csv")) ==
        "bad.csv:3: column 'day': got '2023-02-29', expected a date as 2024-02-29 or 2024-02-29T12:00:00");
  CHECK(x_of(regression("bad.csv", ", categories: [day]")) == std::vector<float>{0, 1, 1, 0});
  write_file("words.csv", "day,y\nMonday,1\n");
  CHECK(error_of(regression("words.csv", ", dates: [day]")) ==
        "words.csv:2: column 'day': got 'Monday', expected a date as 2024-02-29 or 2024-02-29T12:00:00");
}

TEST_CASE("table: every type of number that Arrow has is a number, the same in all formats", "[contract]") {
  const Folder folder;
  const std::string rows = "{\"a\": 3, \"y\": 1}\n{\"a\": 100, \"y\": 2}\n{\"a\": null, \"y\": 3}\n";
  for (const auto& type :
       {arrow::int8(), arrow::int16(), arrow::int32(), arrow::int64(), arrow::uint8(), arrow::uint16(), arrow::uint32(),
        arrow::uint64(), arrow::float16(), arrow::float32(), arrow::float64(), arrow::decimal128(8, 2),
        arrow::decimal256(50, 3), arrow::utf8(), arrow::large_utf8()}) {
    INFO(type->ToString());
    const std::string text =
        type->id() == arrow::Type::STRING || type->id() == arrow::Type::LARGE_STRING || arrow::is_decimal(type->id())
            ? "{\"a\": \"3\", \"y\": 1}\n{\"a\": \"100\", \"y\": 2}\n{\"a\": null, \"y\": 3}\n"
            : rows;
    const bool is_half = type->id() == arrow::Type::HALF_FLOAT;
    const ArrowTable table = is_half ? nullptr : table_of(text, {arrow::field("a", type)});
    if (is_half) {
      arrow::HalfFloatBuilder half;
      REQUIRE(half.AppendValues({0x4200, 0x5640}).ok());
      REQUIRE(half.AppendNull().ok());
      const auto numbers = arrow::ChunkedArray::Make({half.Finish().ValueOrDie()}).ValueOrDie();
      write_arrow("t.arrow", table_of(rows)->SetColumn(0, arrow::field("a", type), numbers).ValueOrDie(), true);
    } else {
      write_arrow("t.arrow", table, true);
    }
    CHECK(x_of(regression("t.arrow", ", missing: 7")) == std::vector<float>{3, 100, 7});
    CHECK(error_of(regression("t.arrow")) ==
          "t.arrow: row 2 (from 0): column 'a': got no value (null), expected a number; missing: {a: drop | mean | "
          "indicator | NUMBER} says what to do with such cells");
  }
  arrow::StringDictionaryBuilder names;
  for (const char* name : {"red", "blue", "red"}) REQUIRE(names.Append(name).ok());
  const auto coded = names.Finish().ValueOrDie();
  const auto column = arrow::ChunkedArray::Make({coded}).ValueOrDie();
  write_arrow("t.arrow", table_of(rows)->SetColumn(0, arrow::field("a", coded->type()), column).ValueOrDie(), true);
  CHECK(x_of(regression("t.arrow")) == std::vector<float>{0, 1, 1, 0, 0, 1});
  write_arrow("t.arrow", table_of("{\"a\": [1], \"y\": 1}\n"), true);
  CHECK(error_of(regression("t.arrow")) ==
        "t.arrow: row 0 (from 0): column 'a': got lists (list<item: int64>), expected single values; lists of token "
        "ids are "
        "read with tokens: a, others leave out with ignore");
  write_arrow("t.arrow", table_of("{\"a\": {\"b\": 1}, \"y\": 1}\n"), true);
  CHECK(
      error_of(regression("t.arrow")) ==
      "t.arrow: row 0 (from 0): column 'a': got values of the type struct<b: int64>, expected numbers, dates or text; "
      "leave it out with ignore, or make columns of its parts in Python");
}

TEST_CASE("table: missing cells are refused, dropped, filled or shown, by a rule for all or for a column",
          "[contract]") {
  const Folder folder;
  write_file("t.csv", "a,b,c,y\n1,5,red,1\nNA,6,,2\n3,null,blue,3\n,8,blue,4\n");
  write_file("e.csv", "a,b,c,y\n,,N/A,1\n");
  const auto rows = [](const std::string& rule) { return x_of(regression("t.csv", ", missing: " + rule)); };
  CHECK(rows("drop") == std::vector<float>{1, 5, 1});  // one row is left, and one category
  CHECK(rows("{a: -1, b: mean, c: none}") ==
        std::vector<float>{1, 5, 0, 0, 1, -1, 6, 0, 1, 0, 3, 19.F / 3, 1, 0, 0, -1, 8, 1, 0, 0});
  CHECK(rows("{default: indicator}") ==
        std::vector<float>{1, 0, 5, 0, 0, 1, 0, 2, 1, 6, 0, 0, 0, 1, 3, 0, 19.F / 3, 1, 1, 0, 0, 2, 1, 8, 0, 1, 0, 0});
  CHECK(error_of(regression("t.csv", ", missing: {default: mean}")) ==
        "t.csv:3: column 'c': got an empty cell, expected a category; missing: {c: drop | indicator | TEXT} says what "
        "to do "
        "with such cells");
  CHECK(error_of(regression("t.csv", ", missing: {default: mean, c: drop, b: red}")) ==
        "t.csv: column 'b': missing: got 'red', expected refuse, drop, mean, indicator or a number: the column holds "
        "numbers");
  CHECK(error_of(regression("t.csv", ", missing: {y: mean}")) ==
        "job.yaml:1:80: data.missing.y: got mean, expected drop or refuse: the column is no feature alone");
  const DataSplits splits = open(regression("t.csv", ", eval: e.csv, missing: indicator"));
  CHECK(x_of(*splits.eval) == std::vector<float>{2, 1, 19.F / 3, 1, 0, 0, 1});
  CHECK(learnt_by(splits)["missing"] == nlohmann::json({{"a", 2.0}, {"b", 19.0 / 3}}));
  CHECK(learnt_by(splits)["indicators"] == nlohmann::json({"a", "b", "c"}));
  write_file("t.csv", "a,y\n1,\n2,3\n");
  CHECK(error_of(regression("t.csv", ", missing: mean")) ==
        "t.csv:2: column 'y': got an empty cell, expected a number; a target is not filled; missing: {y: drop} leaves "
        "such "
        "rows out");
  const auto data = open(regression("t.csv", ", missing: {y: drop}")).train;
  CHECK(x_of(*data) == std::vector<float>{2});
  CHECK(data->place_of(0) == "t.csv:3");
  write_file("t.csv", "a,b,y\n1,,3\n2,,4\n");
  CHECK(error_of(regression("t.csv", ", missing: mean")) ==
        "t.csv: column 'b': got no number in any row, expected one at least, for the mean; leave it out with ignore");
  CHECK(error_of(regression("t.csv", ", missing: drop")) ==
        "t.csv: got no row without missing cells of the 2 rows, expected at least one: missing: drop leaves them all "
        "out");
}

TEST_CASE("table: an evaluation goes by what the checkpoint learnt, without the training file", "[contract]") {
  const Folder folder;
  const std::string train = "day,color,a,kind\n2024-01-01,red,1,dog\n2024-01-03,blue,,cat\n2024-01-05,red,3,dog\n";
  write_file("t.csv", train);
  write_file("e.csv", "day,color,a,kind\n2024-01-02,blue,,dog\n");
  const std::string section =
      "type: table, train: t.csv, eval: e.csv, targets: [kind], task: classification, normalize: true, missing: "
      "indicator";
  const DataSplits splits = open(section);
  const std::vector<float> x = x_of(*splits.eval);
  CHECK(x.size() == 5);  // day, blue, red, a, whether a was missing
  CHECK(x[3] == 0);      // the mean
  DataContext context;
  context.trained = TrainedOn{3, *splits.record};
  std::filesystem::remove("t.csv");
  const DataSplits again = open(section, context);
  CHECK(x_of(*again.eval) == x);
  CHECK(again.class_names == splits.class_names);
  CHECK(again.record->learnt == splits.record->learnt);
  CHECK(targets_of<std::int64_t>(*again.eval) == std::vector<std::int64_t>{1});
  // And a run that goes on with another file.
  write_file("t.csv", "day,color,a,kind\n2034-01-01,red,100,cat\n2034-01-01,blue,100,dog\n2034-01-01,green,100,dog\n");
  CHECK(error_of(section) == "no error");
  CHECK_THROWS_WITH(
      open(section).taught_by(*splits.record),
      "t.csv:4: column 'color': got 'green', expected one of the 2 categories of the training data: blue, red; "
      "unknown: zeros takes others for none of them");
  write_file("t.csv", "day,color,a,kind\n2034-01-01,red,100,cat\n2034-01-01,blue,100,dog\n");
  const DataSplits on = open(section).taught_by(*splits.record);
  CHECK(x_of(*on.eval) == x);
  CHECK(on.record->learnt == splits.record->learnt);
  CHECK(targets_of<std::int64_t>(*on.train) == std::vector<std::int64_t>{0, 1});
}

TEST_CASE("table: damaged JSON lines are named by line, key and value", "[contract]") {
  const Folder folder;
  const std::vector<Bad> cases = {
      {"{\"a\": 1, \"y\": 2}\n\n{\"a\": \"x\", \"y\": 2}\n",
       "t.jsonl:3: column 'a': got '\"x\"', expected a number as in line 1"},
      {"{\"a\": true, \"y\": 2}\n{\"a\": 2, \"y\": 2}\n",
       "t.jsonl:2: column 'a': got '2', expected true or false as in line 1"},
      {"{\"a\": 1, \"y\": 2}\n[1, 2]\n",
       "t.jsonl:2: got an array, expected a JSON object; of one array make lines: jq -c '.[]'"},
      {"", "t.jsonl: got no rows, expected a JSON object a line"},
      {"{}\n", "t.jsonl: got objects without keys, expected a key for each column"},
      {"{\"a\": 1, \"y\": 2}\n{\"y\": 2}\n",
       "t.jsonl:2: column 'a': got no value (null), expected a number; missing: {a: drop | mean | indicator | NUMBER} "
       "says "
       "what to do with such cells"},
  };
  for (const Bad& bad : cases) {
    write_file("t.jsonl", bad.data);
    CHECK(error_of(regression("t.jsonl")) == bad.message);
  }
  write_file("t.jsonl", "{\"a\": 1, \"y\": 2}\n{\"a\": 1, \"y\": \n");
  CHECK_THAT(error_of(regression("t.jsonl")),
             Catch::StartsWith("t.jsonl:2: got '{\"a\": 1, \"y\": ', expected a JSON object on one line: "));
}

TEST_CASE("table: damaged files are named, whatever is damaged", "[contract]") {
  const Folder folder;
  write_parquet("t.parquet", table_of(kJson));
  write_arrow("t.arrow", table_of(kJson), false);
  for (const std::string file : {"t.parquet", "t.arrow"}) {
    std::ifstream in(file, std::ios::binary);
    const std::string whole(std::istreambuf_iterator<char>(in), {});
    for (const std::size_t kept : {std::size_t{6}, whole.size() / 2, whole.size() - 3}) {
      write_file(file, whole.substr(0, kept));
      CHECK_THAT(error_of(regression(file)), Catch::StartsWith(file + ": cannot be read as a table: "));
    }
  }
  write_packed("t.csv.gz", kCsv, arrow::Compression::GZIP);
  std::ifstream in("t.csv.gz", std::ios::binary);
  const std::string whole(std::istreambuf_iterator<char>(in), {});
  write_file("t.csv.gz", whole.substr(0, whole.size() - 9));
  CHECK_THAT(error_of(regression("t.csv.gz")), Catch::StartsWith("t.csv.gz: is damaged gzip-compressed data: "));
  write_file("t.csv", "a,y\n\"open,1\n2,3\n");
  CHECK(error_of(regression("t.csv")) ==
        "t.csv:2: got a quote (\") that is not closed, expected another one; inside of quotes it is written twice");
}

TEST_CASE("table: a build without tables says so", "[contract]") {
  const Table<DataReader> readers{"data reader", {{"text", "", {}}}};
  const auto open_without = [&](const std::string& type) {
    open_data(load_config_text("data: {type: " + type + "}\n", "job.yaml").section("data"), {}, readers);
  };
  CHECK_THROWS_WITH(open_without("table"),
                    "job.yaml:1:14: data.type: got table, which this build has not: it was made without tables "
                    "(LOCKSTEP_ARROW=OFF); expected one of text; or build it with Apache Arrow (docs/install.md)");
  CHECK_THROWS_WITH(open_without("tables"), "job.yaml:1:14: data.type: got tables, expected text");
}
