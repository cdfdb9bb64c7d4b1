// SPDX-License-Identifier: Apache-2.0
#include "runtime/schedule/server_messages.hpp"

#include <numeric>

#include "runtime/base/check.hpp"
#include "tests/test.hpp"

using namespace lockstep;

TEST_CASE("the first slices of a batch are one row larger, and a short batch fills the same sizes", "[unit]") {
  CHECK(slice_rows(8, 5, 8) == std::vector<std::int64_t>{2, 2, 2, 1, 1});
  CHECK(slice_rows(8, 5, 5) == std::vector<std::int64_t>{2, 2, 1});
  CHECK(slice_rows(8, 5, 1) == std::vector<std::int64_t>{1});
  CHECK(slice_rows(4, 4, 4) == std::vector<std::int64_t>{1, 1, 1, 1});
  for (std::int64_t batch = 1; batch <= 12; ++batch)
    for (int m = 1; m <= batch; ++m)
      for (std::int64_t rows = 1; rows <= batch; ++rows) {
        const std::vector<std::int64_t> slices = slice_rows(batch, m, rows);
        CHECK(std::accumulate(slices.begin(), slices.end(), std::int64_t{0}) == rows);
        CHECK(static_cast<int>(slices.size()) <= m);
      }
}

TEST_CASE("headers and row results survive the way through bytes", "[unit]") {
  StepHeader header;
  header.sequence = 41;
  header.mode = Mode::evaluate;
  header.slices = {3, 2, 2};
  header.heads = {{0, 7.5, 1}, {0, 3, 0.25}};
  header.learning_rate = 1e-3;
  header.stop = StopReason::not_finite;
  StepResult result;
  result.sequence = 39;
  result.heads = {{0.1, 2, 1}, {0.6, 3, 0.5}};
  result.non_finite = {4, 2, "output"};
  result.workers = {{0, false, 1.5, 2.5, 0.5, 3.5, 4.5, 99, {90, 5, 3, 1, 0}}};
  result.set = 2;
  result.workers[0].product_rate = 3e12;
  result.workers[0].sent_bytes = 77;
  result.staleness = {5, 0, 2};
  result.workers[0].stages.emplace_back().layer_us = {0.5, 0.25};
  result.workers[0].stages[0].operations = 1e15 + 1;
  header.finished = {result, {}};
  const StepHeader back = StepHeader::from_bytes(header.to_bytes());
  CHECK(back.sequence == 41);
  CHECK(back.mode == Mode::evaluate);
  CHECK(back.slices == header.slices);
  REQUIRE(back.heads.size() == 2);
  CHECK(back.heads[0].denominator == 7.5);
  CHECK(back.heads[1].weight == 0.25);
  CHECK(back.stop == StopReason::not_finite);
  REQUIRE(back.finished.size() == 2);
  REQUIRE(back.finished[0].heads.size() == 2);
  CHECK(back.finished[0].heads[0].sum == 0.1);
  CHECK(back.finished[0].loss() == 0.1 / 2 + 0.5 * (0.6 / 3));
  CHECK(back.finished[0].non_finite.what == "output");
  CHECK(back.finished[0].set == 2);
  CHECK(back.finished[0].workers.at(0).data_us == 0.5);
  CHECK(back.finished[0].workers.at(0).peak_bytes == 99);
  CHECK(back.finished[0].workers.at(0).peak_by_kind == MemoryByKind{90, 5, 3, 1, 0});
  CHECK(back.finished[0].workers.at(0).stages.at(0).layer_us == std::vector<double>{0.5, 0.25});
  CHECK(back.finished[0].workers.at(0).sent_bytes == 77);
  CHECK(back.finished[0].staleness == result.staleness);
  CHECK(back.finished[0].product_rate() == 3e12);
  CHECK(back.finished[0].operations() == 1e15 + 1);
  CHECK(back.finished[1].product_rate() == 0);

  RowResult row;
  row.norm.parameters = {3, 1};
  row.norm.squares = {0.25, 4.0};
  row.signalled = true;
  const RowResult row_back = RowResult::from_bytes(row.to_bytes());
  CHECK(row_back.norm.parameters == row.norm.parameters);
  CHECK(row_back.norm.squares == row.norm.squares);
  CHECK(row_back.signalled);
}

namespace {

/// Whether every enumerator survives in this field of a header, and what is beyond the last is refused.
template <typename Enum>
void check_every(Enum StepHeader::*field) {
  StepHeader header;
  for (int i = 0; i < kCount<Enum>; ++i) {
    header.*field = static_cast<Enum>(i);
    CHECK(StepHeader::from_bytes(header.to_bytes()).*field == header.*field);
    CHECK(find_enum<Enum>(to_string(header.*field)) == header.*field);
    CHECK(is_enumerator(header.*field));
  }
  header.*field = static_cast<Enum>(kCount<Enum>);
  CHECK_THROWS_AS(StepHeader::from_bytes(header.to_bytes()), InternalError);
  CHECK_FALSE(is_enumerator(header.*field));
}

}  // namespace

TEST_CASE("every mode and every reason to stop travels in a header; a byte beyond them is refused", "[unit]") {
  check_every(&StepHeader::mode);
  check_every(&StepHeader::stop);
  CHECK_FALSE(find_enum<Mode>("flus"));
}

TEST_CASE("norm parts survive the way through bytes", "[unit]") {
  RowResult result;
  result.norm = {{4, 7, 7}, {-1, 0, 1}, {0.5, 2.25, 3.5}};
  result.losses = {{0, 2, 1.5}, {1, 0, -2.0}};
  const NormParts back = RowResult::from_bytes(result.to_bytes()).norm;
  CHECK(back.parameters == result.norm.parameters);
  CHECK(back.blocks == result.norm.blocks);
  CHECK(back.squares == result.norm.squares);
  CHECK(RowResult::from_bytes(result.to_bytes()).losses == result.losses);
}

TEST_CASE("what workers and servers say to each other survives the way through bytes", "[unit]") {
  ServerRequest request;
  request.kind = ServerRequest::Kind::leave;
  request.share = 3;
  request.coefficient = 0.5;
  request.text = "why";
  request.servers.resize(2);
  request.servers[1].is_server = true;
  request.results.resize(1);
  request.results[0].step = 7;
  const ServerRequest back = ServerRequest::from_bytes(request.to_bytes());
  CHECK(back.kind == request.kind);
  CHECK(back.share == 3);
  CHECK(back.coefficient == 0.5);
  CHECK(back.text == "why");
  CHECK(back.servers.at(1).is_server);
  CHECK(back.results.at(0).step == 7);
  ServerReply reply;
  reply.staleness = 5;
  reply.squares.squares = {1, 2};
  reply.saved = {"model"};
  reply.report.update_us = 9;
  const ServerReply reply_back = ServerReply::from_bytes(reply.to_bytes());
  CHECK(reply_back.staleness == 5);
  CHECK(reply_back.squares.squares == reply.squares.squares);
  CHECK(reply_back.saved == reply.saved);
  CHECK(reply_back.report.update_us == 9);
}

TEST_CASE("a control message that was cut or lengthened is refused", "[unit]") {
  StepHeader header;
  header.slices = {1, 2, 3};
  const std::string bytes = header.to_bytes();
  for (std::size_t length = 0; length < bytes.size(); ++length)
    CHECK_THROWS_AS(StepHeader::from_bytes(bytes.substr(0, length)), InternalError);
  CHECK_THROWS_AS(StepHeader::from_bytes(bytes + "x"), InternalError);
}

TEST_CASE("of several non-finite values the first in the step is named", "[unit]") {
  const NonFinite none, early{5, 0, "output"}, late{2, 1, "output"}, loss{9, 0, "loss"},
      backward{3, 0, "input gradient"};
  CHECK(first_of(none, late).layer == 2);
  CHECK(first_of(late, early).layer == 5);
  CHECK(first_of(early, {4, 0, "output"}).layer == 4);
  CHECK(first_of(loss, late).layer == 2);
  CHECK(first_of(backward, loss).layer == 9);
  CHECK(first_of(backward, {4, 0, "input gradient"}).layer == 4);
  CHECK(first_of({1, 7, "gradient of w"}, backward).layer == 3);
  CHECK_FALSE(first_of(none, none).found());
}
