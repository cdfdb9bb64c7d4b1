// SPDX-License-Identifier: Apache-2.0
#include "runtime/observe/tensorboard.hpp"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <limits>
#include <optional>
#include <vector>

#include "runtime/base/error.hpp"
#include "tests/temporary_folder.hpp"
#include "tests/test.hpp"

namespace lockstep {
namespace {

// A reader of its own: fixed-width fields by memcpy, the checksum bit by bit.

std::uint32_t slow_crc32c(const std::string& bytes) {
  std::uint32_t crc = ~0U;
  for (const char byte : bytes) {
    for (int bit = 0; bit < 8; ++bit) {
      const bool odd = ((crc ^ (static_cast<unsigned char>(byte) >> bit)) & 1) != 0;
      crc = odd ? (crc >> 1) ^ 0x82f63b78U : crc >> 1;
    }
  }
  return ~crc;
}

class Reader {
 public:
  explicit Reader(std::string bytes) : bytes_(std::move(bytes)) {}
  bool done() const { return at_ == bytes_.size(); }
  std::string take(std::size_t count) {
    REQUIRE(at_ + count <= bytes_.size());
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }
  template <typename T>
  T fixed() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      REQUIRE(shift < 70);
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }

 private:
  std::string bytes_;
  std::size_t at_ = 0;
};

std::string checked(Reader& file, std::size_t count) {
  std::string data = file.take(count);
  const std::uint32_t crc = file.fixed<std::uint32_t>() - 0xa282ead8U;
  CHECK(((crc >> 17) | (crc << 15)) == slow_crc32c(data));
  return data;
}

struct Event {
  double wall_time_s = 0;
  std::int64_t step = 0;
  std::string version;
  std::string tag;
  std::optional<float> value;
  std::uint64_t session = 0;  ///< 1: START
};

void read_message(Reader message, int depth, Event& event) {
  while (!message.done()) {
    const std::uint64_t key = message.varint();
    if (depth == 0 && key == (1 << 3 | 1))
      event.wall_time_s = message.fixed<double>();
    else if (depth == 0 && key == (2 << 3 | 0))
      event.step = static_cast<std::int64_t>(message.varint());
    else if (depth == 0 && key == (3 << 3 | 2))
      event.version = message.take(message.varint());
    else if (depth == 0 && key == (5 << 3 | 2))
      read_message(Reader(message.take(message.varint())), 1, event);
    else if (depth == 0 && key == (7 << 3 | 2))
      read_message(Reader(message.take(message.varint())), 3, event);
    else if (depth == 3 && key == (1 << 3 | 0))
      event.session = message.varint();
    else if (depth == 1 && key == (1 << 3 | 2))
      read_message(Reader(message.take(message.varint())), 2, event);
    else if (depth == 2 && key == (1 << 3 | 2))
      event.tag = message.take(message.varint());
    else if (depth == 2 && key == (2 << 3 | 5))
      event.value = message.fixed<float>();
    else
      FAIL("field key " << key << " at depth " << depth);
  }
}

std::vector<Event> read_events(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  Reader file(std::string(std::istreambuf_iterator<char>(stream), {}));
  std::vector<Event> events;
  while (!file.done()) {
    std::uint64_t length = 0;
    std::memcpy(&length, checked(file, sizeof length).data(), sizeof length);
    read_message(Reader(checked(file, length)), 0, events.emplace_back());
  }
  return events;
}

}  // namespace

TEST_CASE("crc32c gives the published values", "[unit]") {
  std::string ascending, descending;  // RFC 3720, appendix B.4
  for (char i = 0; i < 32; ++i) ascending += i;
  for (char i = 31; i >= 0; --i) descending += i;
  CHECK(crc32c("") == 0);
  CHECK(crc32c("123456789") == 0xe3069283);
  CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aa);
  CHECK(crc32c(std::string(32, '\xff')) == 0x62a8ab43);
  CHECK(crc32c(ascending) == 0x46dd794e);
  CHECK(crc32c(descending) == 0x113fdb5c);
}

TEST_CASE("a job that goes on tells TensorBoard from which step on it does", "[unit]") {
  const test::TemporaryFolder folder;
  TensorBoardWriter writer(folder.path(), 8);
  writer.scalar("loss", 8, 0.5);
  const std::vector<Event> events = read_events(writer.path());
  REQUIRE(events.size() == 3);
  CHECK(events[0].version == "brain.Event:2");
  CHECK(events[1].session == 1);
  CHECK(events[1].step == 8);
  CHECK(events[2].step == 8);
}

TEST_CASE("an event file starts with its version and keeps every scalar", "[unit]") {
  const test::TemporaryFolder folder;
  TensorBoardWriter writer(folder.path());
  writer.scalar("loss", 1, 0.5, 1700000000.25);
  writer.scalar("a/long tag \xc3\xa9" + std::string(200, 'x'), std::int64_t{1} << 40, -1e-3, 1700000001.0);
  writer.scalar("negative", -1, std::numeric_limits<double>::infinity(), 0);

  const std::vector<Event> events = read_events(writer.path());
  REQUIRE(events.size() == 4);
  CHECK(events[0].version == "brain.Event:2");
  CHECK(std::abs(events[0].wall_time_s - unix_time_s()) < 60);
  CHECK_FALSE(events[0].value.has_value());
  CHECK(events[1].tag == "loss");
  CHECK(events[1].step == 1);
  CHECK(events[1].value == 0.5F);
  CHECK(events[1].wall_time_s == 1700000000.25);
  CHECK(events[2].tag == "a/long tag \xc3\xa9" + std::string(200, 'x'));
  CHECK(events[2].step == std::int64_t{1} << 40);
  CHECK(events[2].value == -1e-3F);
  CHECK(events[3].step == -1);
  CHECK(std::isinf(events[3].value.value()));
}

TEST_CASE("writers of one second do not share a file", "[unit]") {
  const test::TemporaryFolder folder;
  TensorBoardWriter one(folder.path()), two(folder.path()), three(folder.path());
  two.scalar("x", 1, 1);
  CHECK(one.path() != two.path());
  CHECK(two.path() != three.path());
  CHECK(one.path().find("/events.out.tfevents.") != std::string::npos);
  CHECK(read_events(one.path()).size() == 1);
  CHECK(read_events(two.path()).size() == 2);
}

TEST_CASE("an event file that cannot be written is the user's to fix", "[unit]") {
  CHECK_THROWS_AS(TensorBoardWriter("/no/such/folder"), UserError);
}

}  // namespace lockstep
