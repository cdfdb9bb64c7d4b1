// SPDX-License-Identifier: Apache-2.0
//
// Slots of MPI messages, damaged: a CommError, or tensors of exactly the announced bytes; and never an allocation that
// the announced bytes do not cover.
#include <algorithm>
#include <cstring>

#include "runtime/comm/channel.hpp"
#include "runtime/comm/mpi/slot.hpp"
#include "tests/contract/fabric.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/test.hpp"

namespace lockstep::fuzz {
namespace {

using mpi::ConstBytes;

constexpr int kEdge = 3;

struct Slot {
  std::vector<std::byte> bytes;        ///< as received
  std::vector<std::byte> description;  ///< as received on the bulk tag
};

Slot packed(const Message& message, std::size_t slot_bytes) {
  Slot slot;
  slot.bytes.resize(slot_bytes);
  mpi::Packed packed = mpi::pack(message, kEdge, 1 << 20, slot.bytes);
  slot.bytes.resize(static_cast<std::size_t>(packed.slot_bytes));
  slot.description = std::move(packed.description);
  return slot;
}

/// Overwrites 1 to 8 bytes with a value at which a size, a count or a flag goes wrong.
void damage(std::vector<std::byte>& bytes, Random& random) {
  static const std::vector<std::uint64_t> values = {
      0,          1,          2,          7,          64,    255,       1ULL << 16, 1ULL << 31, 1ULL << 32,
      1ULL << 40, 1ULL << 61, 1ULL << 62, 1ULL << 63, ~0ULL, ~0ULL - 7, ~0ULL - 63, ~0ULL - 127};
  const std::size_t size = std::size_t{1} << random.below(4);
  if (bytes.size() < size) return;
  const std::uint64_t value = random.one_in(3) ? random.bits() : random.any(values);
  // Fields are aligned; now and then one that is not.
  std::size_t at = random.below(bytes.size() - size + 1);
  if (!random.one_in(4)) at -= at % size;
  std::memcpy(bytes.data() + at, &value, size);
}

std::string receive(const Slot& slot, int& good) {
  std::uint64_t allocated = 0;
  std::string wrong;
  try {
    const mpi::SlotHeader header = mpi::read_header(slot.bytes, kEdge);
    const mpi::Allocate allocate = [&](at::IntArrayRef sizes, at::ScalarType dtype) {
      // Not at::empty first: it is the size that is judged.
      std::uint64_t bytes = c10::elementSize(dtype);
      for (const std::int64_t size : sizes) bytes *= static_cast<std::uint64_t>(size);
      allocated += bytes;
      if (allocated > header.payload_bytes || allocated > (1ULL << 26))
        throw std::logic_error(concat(allocated, " bytes"));
      return at::empty(sizes, at::device(at::kCPU).dtype(dtype));
    };
    const bool inside = header.description_in_slot != 0;
    const ConstBytes description =
        inside ? ConstBytes(slot.bytes).subspan(mpi::kDescriptionOffset, header.description_bytes)
               : ConstBytes(slot.description);
    if (!inside && header.description_bytes > (1ULL << 28)) return "a huge description";
    const std::vector<at::Tensor> tensors = mpi::make_tensors(header, description, allocate);
    if (allocated != header.payload_bytes) return "other bytes than announced";
    if (header.payload_in_slot != 0) mpi::copy_payload(header, slot.bytes, tensors);
    ++good;
    return "";
  } catch (const CommError& error) {
    return "";
  } catch (const std::exception& error) {
    return concat("not a CommError: ", error.what());
  }
}

}  // namespace

TEST_CASE("damaged message slots are a CommError or tensors of the announced bytes", "[fuzz]") {
  int good = 0, cases = 0;
  const std::string wrong = run_cases("slot", 4000, [&](Random& random, bool) {
    const Message message = test::random_message(static_cast<unsigned>(random.bits()));
    Slot slot = packed(message, std::vector<std::size_t>{64, 128, 256, 4096, 1 << 18}[random.below(5)]);
    int whole = 0;
    std::string verdict = receive(slot, whole);
    if (!verdict.empty() || whole != 1) return concat("an undamaged slot: ", verdict);
    for (std::size_t changes = 1 + random.below(3); changes > 0; --changes) {
      if (random.one_in(8)) {
        slot.bytes.resize(random.below(slot.bytes.size() + 16));
      } else {
        damage(!slot.description.empty() && random.one_in(2) ? slot.description : slot.bytes, random);
      }
    }
    ++cases;
    return receive(slot, good);
  });
  CHECK(wrong == "");
  if (cases >= 1000) {
    CHECK(good > cases / 100);  // damage to the payload itself is not seen here
    CHECK(good < cases * 3 / 4);
  }
}

TEST_CASE("sizes that wrap around, are negative or do not add up are a CommError", "[fuzz]") {
  const auto header_of = [](const Slot& slot) {
    mpi::SlotHeader header;
    std::memcpy(&header, slot.bytes.data(), sizeof(header));
    return header;
  };
  const auto refused = [](Slot slot, const mpi::SlotHeader& header) {
    std::memcpy(slot.bytes.data(), &header, sizeof(header));
    int good = 0;
    return receive(slot, good) == "" && good == 0;
  };
  Message message;
  message.tensors = {test::patterned({2, 3}, at::kFloat, 1)};
  const Slot slot = packed(message, 4096);  // 64 header, 8 + 16 description, 24 payload
  mpi::SlotHeader header = header_of(slot);
  REQUIRE(header.description_bytes == 24);
  REQUIRE(header.payload_bytes == 24);

  header.description_bytes = ~0ULL - 15;  // -16: the sum is right again with a payload of 64
  header.payload_bytes = 64;
  CHECK(refused(slot, header));
  header = header_of(slot);
  header.block_bytes = 1ULL << 63;
  CHECK(refused(slot, header));
  header = header_of(slot);
  header.tensors = 1ULL << 61;  // times 8 is 2^64
  CHECK(refused(slot, header));
  header = header_of(slot);
  header.description_in_slot = 0;  // then the payload cannot be in it
  CHECK(refused(slot, header));

  const auto with_sizes = [&](std::int64_t a, std::int64_t b, std::uint64_t payload) {
    Slot changed = slot;
    mpi::SlotHeader h = header_of(slot);
    h.payload_in_slot = 0;
    h.payload_bytes = payload;
    const std::int64_t sizes[] = {a, b};
    std::memcpy(changed.bytes.data() + 64 + 8, sizes, sizeof(sizes));
    changed.bytes.resize(64 + 24);
    return refused(changed, h);
  };
  CHECK(with_sizes(-2, -3, 24));
  CHECK(with_sizes(-2, 3, ~0ULL - 23));
  CHECK(with_sizes(std::int64_t{1} << 32, std::int64_t{1} << 32, 0));
  CHECK(with_sizes(std::int64_t{1} << 62, 0, 0));
  CHECK(with_sizes(std::int64_t{1} << 62, 4, 0));
  CHECK(!with_sizes(2, 3, 24));  // the same by hand, whole
}

}  // namespace lockstep::fuzz
