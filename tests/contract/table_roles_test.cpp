// SPDX-License-Identifier: Apache-2.0
//
// The table reader: windows over series, rows as sequences of tokens.
#include "tests/contract/table_fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

std::string forecast(const std::string& window, const std::string& more = "") {
  return "type: table, train: t.csv, targets: [v], task: forecast, window: {" + window + "}" + more;
}

std::string sequence(const std::string& file, const std::string& more) {
  return "type: table, train: " + file + ", " + more;
}

}  // namespace

TEST_CASE("windows: the features of some rows, the targets of the rows behind them", "[contract]") {
  const Folder folder;
  write_file("t.csv", "v,w\n0,10\n1,11\n2,12\n3,13\n4,14\n5,15\n");
  const auto data = open(forecast("length: 2, horizon: 2")).train;
  CHECK(entry_texts(*data, 3) == std::vector<std::string>{"x Float [3, 2, 2]", "targets Float [3, 2]"});
  check_keeps_its_word(*data, {2, 0});
  CHECK(data->size() == 3);
  const Tensors read = data->read({2, 0});
  CHECK(values<float>(read[0]) == std::vector<float>{2, 12, 3, 13, 0, 10, 1, 11});
  CHECK(values<float>(read[1]) == std::vector<float>{4, 5, 2, 3});
  CHECK(data->place_of(2) == "t.csv:4");
  CHECK(open(forecast("length: 2, horizon: 2, stride: 2")).train->size() == 2);
  const auto flat = open(forecast("length: 3, flat: true", ", columns: [w]")).train;
  CHECK(entry_texts(*flat, 1) == std::vector<std::string>{"x Float [1, 3]", "targets Float [1, 1]"});
  CHECK(values<float>(flat->read({2})[0]) == std::vector<float>{12, 13, 14});
  CHECK(values<float>(flat->read({2})[1]) == std::vector<float>{5});
  CHECK(error_of(forecast("length: 5, horizon: 2")) ==
        "t.csv: got 1 series of at most 6 rows, expected one of 7 or more: length 5 + horizon 2");
}

TEST_CASE("windows: no window crosses groups or a dropped row, and rows are in order", "[contract]") {
  const Folder folder;
  write_file("t.csv",
             "shop,day,v\nx,2024-01-01,1\ny,2024-01-01,10\nx,2024-01-02,2\ny,2024-01-02,20\nx,2024-01-03,3\n"
             "y,2024-01-03,30\n");
  const auto data = open(forecast("length: 2, group: shop, order: day")).train;
  CHECK(data->size() == 2);
  CHECK(x_of(*data) == std::vector<float>{1, 2, 10, 20});
  CHECK(targets_of<float>(*data) == std::vector<float>{3, 30});
  CHECK(data->place_of(1) == "t.csv:3");
  write_file("t.csv", "v\n1\n2\n3\nNA\n5\n6\n7\n8\n");
  const auto broken = open(forecast("length: 2", ", missing: drop")).train;
  CHECK(x_of(*broken) == std::vector<float>{1, 2, 5, 6, 6, 7});
  write_file("t.csv", "shop,day,v\nx,2024-01-02,1\nx,2024-01-02,2\nx,2024-01-03,3\n");
  CHECK(error_of(forecast("length: 2, group: shop, order: day")) ==
        "t.csv:3: column 'day': got '2024-01-02' after '2024-01-02' (t.csv:2), expected more; sort the rows of each "
        "group "
        "by this column");
  write_file("t.csv", "shop,v\nx,1\n,2\n");
  CHECK(
      error_of(forecast("length: 1, group: shop")) ==
      "t.csv:3: column 'shop': got an empty cell, expected a value; every row of a series has its group and its place");
}

TEST_CASE("tokens: the bytes of a text, with a label or the next ones as targets", "[contract]") {
  const Folder folder;
  write_file("t.csv", "said,mood\n\"ab, c\",good\nde,bad\n");
  const DataSplits splits = open(sequence("t.csv", "text: said, targets: [mood], task: classification, context: 5"));
  CHECK(entry_texts(*splits.train, 2) == std::vector<std::string>{"x Long [2, 5]", "targets Long [2]"});
  check_keeps_its_word(*splits.train, {1, 0, 1});
  const Tensors read = splits.train->read({1, 0});
  CHECK(values<std::int64_t>(read[0]) == std::vector<std::int64_t>{'d', 'e', 0, 0, 0, 'a', 'b', ',', ' ', 'c'});
  CHECK(values<std::int64_t>(read[1]) == std::vector<std::int64_t>{0, 1});
  CHECK(splits.class_names == std::vector<std::string>{"bad", "good"});
  CHECK(splits.train->classes() == std::vector<std::int64_t>{1, 0});
  CHECK(splits.train->entries(1)[0].below == 'e' + 1);
  const auto next = open(sequence("t.csv", "text: said, task: next_token, context: 4, pad: 9")).train;
  const Tensors tokens = next->read({0, 1});
  CHECK(values<std::int64_t>(tokens[0]) == std::vector<std::int64_t>{'a', 'b', ',', ' ', 'd', 'e', 9, 9});
  CHECK(values<std::int64_t>(tokens[1]) == std::vector<std::int64_t>{'b', ',', ' ', 'c', 'e', -100, -100, -100});
  CHECK(next->place_of(1) == "t.csv:3");
  CHECK(error_of(sequence("t.csv", "text: said, task: next_token, context: 3")) ==
        "t.csv:2: column 'said': got 5 tokens, expected at most 4 (context 3 and the last target); truncate: true cuts "
        "such "
        "rows, or make context larger");
  const DataSplits cut = open(sequence("t.csv", "text: said, task: next_token, context: 3, truncate: true"));
  CHECK(values<std::int64_t>(cut.train->read({0})[1]) == std::vector<std::int64_t>{'b', ',', ' '});
  CHECK(cut.notes == std::vector<std::string>{"t.csv: 1 of 2 rows are longer than 4 tokens and were cut"});
}

TEST_CASE("tokens: lists of ids, of every width, of any file that holds them", "[contract]") {
  const Folder folder;
  const std::string rows = "{\"ids\": [5, 6, 7]}\n{\"ids\": [1000, 2]}\n";
  for (const auto& type : {arrow::list(arrow::int32()), arrow::list(arrow::int64()), arrow::list(arrow::uint16()),
                           arrow::large_list(arrow::uint32())}) {
    INFO(type->ToString());
    ArrowTable table;
    if (type->id() == arrow::Type::LARGE_LIST) {
      const auto ids = std::make_shared<arrow::UInt32Builder>();
      arrow::LargeListBuilder lists(arrow::default_memory_pool(), ids);
      for (const std::vector<std::uint32_t>& row : {std::vector<std::uint32_t>{5, 6, 7}, {1000, 2}})
        REQUIRE((lists.Append().ok() && ids->AppendValues(row).ok()));
      table = arrow::Table::Make(arrow::schema({arrow::field("ids", type)}), {lists.Finish().ValueOrDie()});
    } else {
      table = table_of(rows, {arrow::field("ids", type)});
    }
    write_arrow("t.arrow", table, true, 1);
    write_parquet("t.parquet", table);
    write_file("t.jsonl", rows);
    for (const char* file : {"t.arrow", "t.parquet", "t.jsonl"}) {
      const auto data = open(sequence(file, "tokens: ids, task: next_token, context: 3")).train;
      CHECK(data->entries(1)[0].below == 1001);
      check_keeps_its_word(*data, {1, 0});
      const Tensors read = data->read({1, 0});
      CHECK(values<std::int64_t>(read[0]) == std::vector<std::int64_t>{1000, 2, 0, 5, 6, 7});
      CHECK(values<std::int64_t>(read[1]) == std::vector<std::int64_t>{2, -100, -100, 6, 7, -100});
    }
  }
  const auto pairs = std::make_shared<arrow::Int8Builder>();
  arrow::FixedSizeListBuilder fixed(arrow::default_memory_pool(), pairs, 2);
  for (const std::vector<std::int8_t>& row : {std::vector<std::int8_t>{1, 2}, {3, 4}})
    REQUIRE((fixed.Append().ok() && pairs->AppendValues(row).ok()));
  const auto lists = fixed.Finish().ValueOrDie();
  write_arrow("t.arrow", arrow::Table::Make(arrow::schema({arrow::field("ids", lists->type())}), {lists}), true);
  CHECK(values<std::int64_t>(
            open(sequence("t.arrow", "tokens: ids, task: next_token, context: 2")).train->read({1})[0]) ==
        std::vector<std::int64_t>{3, 4});
  const std::string next = "tokens: ids, task: next_token, context: 2";
  write_file("t.jsonl", "{\"ids\": [1, 2]}\n{\"ids\": [3, -4]}\n");
  CHECK(error_of(sequence("t.jsonl", next)) == "t.jsonl:2: column 'ids': got the token id -4, expected 0 or more");
  write_file("t.jsonl", "{\"ids\": [1, 2]}\n{\"ids\": null}\n{\"ids\": [3, null]}\n");
  CHECK(error_of(sequence("t.jsonl", next)) ==
        "t.jsonl:3: column 'ids': got a null at place 1 of the list (from 0), expected a token id");
  write_file("t.jsonl", "{\"ids\": [1, 2]}\n{\"ids\": null}\n{\"ids\": [3]}\n{\"ids\": [4, 5]}\n");
  CHECK(error_of(sequence("t.jsonl", next)) ==
        "t.jsonl:2: column 'ids': got no value (null), expected at least 2; missing: drop leaves such rows out");
  const auto dropped = open(sequence("t.jsonl", next + ", missing: drop")).train;
  CHECK(dropped->size() == 2);
  CHECK(dropped->place_of(1) == "t.jsonl:4");
  write_file("t.jsonl", "{\"ids\": [1.5]}\n");
  CHECK(error_of(sequence("t.jsonl", next)) ==
        "t.jsonl:1: column 'ids': got cells of the type list<item: double>, expected lists of whole numbers");
  write_file("t.jsonl", "{\"ids\": \"text\"}\n");
  CHECK(error_of(sequence("t.jsonl", next)) ==
        "t.jsonl:1: column 'ids': got cells of the type string, expected lists of token ids; text is read with text:");
}

TEST_CASE("tokens: of a prompt and its answer the loss sees the answer alone", "[contract]") {
  const Folder folder;
  write_file("t.jsonl", "{\"q\": \"ab\", \"a\": \"xyz\"}\n{\"q\": \"\", \"a\": \"uv\"}\n");
  const std::string keys = "prompt: q, answer: a, task: next_token, context: 5";
  const auto data = open(sequence("t.jsonl", keys)).train;
  const Tensors read = data->read({0, 1});
  CHECK(values<std::int64_t>(read[0]) == std::vector<std::int64_t>{'a', 'b', 'x', 'y', 'z', 'u', 'v', 0, 0, 0});
  CHECK(values<std::int64_t>(read[1]) ==
        std::vector<std::int64_t>{-100, 'x', 'y', 'z', -100, 'v', -100, -100, -100, -100});
  write_file("t.jsonl", "{\"q\": [1, 2], \"a\": [3]}\n");
  const Tensors lists = open(sequence("t.jsonl", keys)).train->read({0});
  CHECK(values<std::int64_t>(lists[1]) == std::vector<std::int64_t>{-100, 3, -100, -100, -100});
  write_file("t.jsonl", "{\"q\": \"ab\", \"a\": \"\"}\n");
  CHECK(error_of(sequence("t.jsonl", keys)) ==
        "t.jsonl:1: column 'a': got 0 tokens, expected at least 1; missing: drop leaves such rows out");
}

TEST_CASE("table: roles that do not go together are refused", "[contract]") {
  const Folder folder;
  write_file("t.csv", "a,y\n1,2\n");
  const std::vector<Bad> cases = {
      {"type: table, train: t.csv, task: next_token",
       "job.yaml:1:41: data.task: got next_token, expected regression, classification or forecast; next_token wants "
       "text: "
       "COLUMN, tokens: COLUMN, or prompt: and answer:"},
      {"type: table, train: t.csv, task: forecast, targets: [y]",
       "job.yaml:1:41: data.task: got forecast without window: {length: ...}, expected both"},
      {"type: table, train: t.csv, task: regression, targets: [y], window: {length: 2}",
       "job.yaml:1:75: data.window: got a window, expected one with task: forecast only"},
      {"type: table, train: t.csv, task: regression, targets: [y], text: a, context: 4",
       "job.yaml:1:41: data.task: got regression, expected next_token or classification, which text and tokens are "
       "for"},
      {"type: table, train: t.csv, task: next_token, prompt: a, context: 4",
       "job.yaml:1:61: data.prompt: got one of prompt and answer, expected both"},
      {"type: table, train: t.csv, task: next_token, text: a",
       "job.yaml:1:7: data.context: missing, expected an integer >= 1; this model has none that could be the default"},
      {"type: table, train: t.csv, task: next_token, text: a, targets: [y], context: 4",
       "job.yaml:1:71: data.targets: got [y], expected none: the targets of next_token are the next tokens"},
      {"type: table, train: t.csv, task: forecast, targets: [y], window: {length: 0}",
       "job.yaml:1:82: data.window.length: got 0, expected an integer >= 1"},
      {"type: csv, format: csv, train: t.csv, task: regression, targets: [y]",
       "job.yaml:1:19: data.format: got an unknown key"},
  };
  for (const Bad& bad : cases) CHECK_THAT(error_of(bad.data), Catch::StartsWith(bad.message));
}
