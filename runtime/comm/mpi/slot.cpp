// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi/slot.hpp"

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstring>

#include "runtime/base/check.hpp"
#include "runtime/comm/channel.hpp"

namespace lockstep::mpi {
namespace {

constexpr std::uint32_t kMagic = 0x4c4b5350;  // "LKSP"
constexpr std::uint16_t kVersion = 1;
constexpr std::uint64_t kMostDims = 64;                                  // as ATen
constexpr std::uint64_t kMostBlockBytes = std::uint64_t{1} << 30;        // as MpiEndpointOptions
constexpr std::uint64_t kMostDescriptionBytes = std::uint64_t{1} << 28;  // half a million tensors of 64 dimensions

/// One tensor of the description; its sizes (dims x int64) follow.
struct TensorEntry {
  std::int8_t dtype = 0;
  std::uint8_t defined = 0;
  std::uint16_t dims = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(TensorEntry) == 8);

std::uint64_t payload_bytes(const std::vector<at::Tensor>& tensors) {
  std::uint64_t bytes = 0;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined()) bytes += tensor.nbytes();
  return bytes;
}

std::vector<std::byte> describe(const std::vector<at::Tensor>& tensors) {
  std::vector<std::byte> out;
  const auto append = [&out](const void* from, std::size_t bytes) {
    const auto* first = static_cast<const std::byte*>(from);
    out.insert(out.end(), first, first + bytes);
  };
  for (const at::Tensor& tensor : tensors) {
    TensorEntry entry;
    if (tensor.defined()) {
      entry.defined = 1;
      entry.dtype = static_cast<std::int8_t>(tensor.scalar_type());
      entry.dims = static_cast<std::uint16_t>(tensor.dim());
    }
    append(&entry, sizeof(entry));
    if (entry.dims > 0) append(tensor.sizes().data(), entry.dims * sizeof(std::int64_t));
  }
  return out;
}

/// Reads front to back and never past the end.
class Cursor {
 public:
  explicit Cursor(ConstBytes bytes) : bytes_(bytes) {}
  void read(void* to, std::size_t count) {
    if (count > bytes_.size())
      throw CommError(concat("a message ends early: ", count, " more bytes expected, ", bytes_.size(), " left"));
    if (count > 0) std::memcpy(to, bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
  }
  bool at_end() const { return bytes_.empty(); }

 private:
  ConstBytes bytes_;
};

bool travels(std::int8_t dtype) {
  if (dtype < 0 || dtype >= static_cast<std::int8_t>(c10::ScalarType::NumOptions)) return false;
  const auto type = static_cast<c10::ScalarType>(dtype);
  return type != c10::ScalarType::Undefined && !c10::isQIntType(type);
}

/// One tensor of a description, before anything is allocated for it.
struct Described {
  bool defined = false;
  at::ScalarType dtype = at::kFloat;
  std::vector<std::int64_t> sizes;
};

/// Adds the tensor's bytes to `bytes`; false when one of its sizes is negative or a product or sum does not fit.
bool add_bytes(const Described& tensor, std::uint64_t& bytes) {
  auto own = static_cast<std::int64_t>(c10::elementSize(tensor.dtype));
  bool empty = false;
  for (const std::int64_t size : tensor.sizes) {
    empty = empty || size == 0;
    // Zeros are left out: LibTorch multiplies the other sizes too, for the strides.
    if (size < 0 || (size > 0 && __builtin_mul_overflow(own, size, &own))) return false;
  }
  return empty || !__builtin_add_overflow(bytes, static_cast<std::uint64_t>(own), &bytes);
}

Described read_entry(Cursor& cursor) {
  TensorEntry entry;
  cursor.read(&entry, sizeof(entry));
  if (!travels(entry.dtype) || entry.dims > kMostDims || entry.defined > 1)
    throw CommError(
        concat("a message describes a tensor of dtype ", int{entry.dtype}, " with ", entry.dims, " dimensions"));
  Described tensor{entry.defined != 0, static_cast<at::ScalarType>(entry.dtype), {}};
  tensor.sizes.resize(entry.dims);
  cursor.read(tensor.sizes.data(), tensor.sizes.size() * sizeof(std::int64_t));
  return tensor;
}

/// The whole description, checked against the header.
std::vector<Described> read_description(const SlotHeader& header, ConstBytes description) {
  std::vector<Described> tensors;
  std::uint64_t bytes = 0;
  Cursor cursor(description);
  for (std::uint64_t i = 0; i < header.tensors; ++i) {
    tensors.push_back(read_entry(cursor));
    if (tensors.back().defined && !add_bytes(tensors.back(), bytes))
      throw CommError(concat("a message describes a tensor of the sizes [", join(tensors.back().sizes), "]"));
  }
  if (!cursor.at_end()) throw CommError("a message describes more tensors than its header says");
  if (bytes != header.payload_bytes)
    throw CommError(concat("a message says it carries ", header.payload_bytes, " bytes, its tensors have ", bytes));
  return tensors;
}

}  // namespace

int pack_tag(TagKind kind, int edge, int tag_limit) {
  LOCKSTEP_CHECK(edge >= 0, "edge ", edge);
  // Tags 0 and 1 are those of control messages.
  if (edge > (tag_limit - 3) / 2)
    throw CommError(concat("edge ", edge, " between two ranks needs a tag above ", tag_limit,
                           ", the limit of this MPI: at most ", (tag_limit - 3) / 2 + 1,
                           " edges from one rank to another"));
  return (edge + 1) * 2 + static_cast<int>(kind);
}

Packed pack(const Message& message, int edge, std::int64_t block_bytes, Bytes slot) {
  Packed packed;
  packed.description = describe(message.tensors);
  SlotHeader header;
  header.magic = kMagic;
  header.version = kVersion;
  header.sequence = message.sequence;
  header.micro_batch = message.micro_batch;
  header.edge = edge;
  header.tensors = message.tensors.size();
  header.description_bytes = packed.description.size();
  header.payload_bytes = payload_bytes(message.tensors);
  header.block_bytes = static_cast<std::uint64_t>(block_bytes);

  std::size_t used = sizeof(header);
  const auto append = [&](const void* from, std::size_t bytes) {
    if (bytes > 0) std::memcpy(slot.data() + used, from, bytes);
    used += bytes;
  };
  header.description_in_slot = used + packed.description.size() <= slot.size();
  if (header.description_in_slot != 0) {
    append(packed.description.data(), packed.description.size());
    packed.description.clear();
    const bool of_host = std::all_of(message.tensors.begin(), message.tensors.end(), [](const at::Tensor& tensor) {
      return !tensor.defined() || tensor.device().is_cpu();
    });
    header.payload_in_slot = of_host && used + header.payload_bytes <= slot.size();
    if (header.payload_in_slot != 0)
      for (const at::Tensor& tensor : message.tensors)
        if (tensor.defined()) append(tensor.const_data_ptr(), tensor.nbytes());
  }
  std::memcpy(slot.data(), &header, sizeof(header));
  packed.slot_bytes = static_cast<std::int64_t>(used);
  packed.payload_in_slot = header.payload_in_slot != 0;
  return packed;
}

SlotHeader read_header(ConstBytes received, int edge) {
  SlotHeader header;
  Cursor(received).read(&header, sizeof(header));
  if (header.magic != kMagic)
    throw CommError(concat("a message starts with ", header.magic, ", not with ", kMagic, ": it is not ours"));
  if (header.version != kVersion)
    throw CommError(concat("a message has protocol version ", header.version, ", this binary speaks ", kVersion,
                           ": all ranks must run the same binary"));
  if (header.edge != edge) throw CommError(concat("a message of edge ", header.edge, " arrived on edge ", edge));
  const bool sane = header.description_in_slot <= 1 && header.payload_in_slot <= header.description_in_slot &&
                    header.block_bytes >= 1 && header.block_bytes <= kMostBlockBytes &&
                    header.description_bytes <= kMostDescriptionBytes &&
                    header.tensors <= header.description_bytes / sizeof(TensorEntry);
  if (!sane)
    throw CommError(concat("a message header makes no sense: ", header.tensors, " tensors described in ",
                           header.description_bytes, " bytes, blocks of ", header.block_bytes, " bytes"));
  const std::uint64_t description = header.description_in_slot != 0 ? header.description_bytes : 0;
  const std::uint64_t payload = header.payload_in_slot != 0 ? header.payload_bytes : 0;
  // Not added up: a sum may wrap around.
  if (received.size() - sizeof(header) < description || received.size() - sizeof(header) - description != payload)
    throw CommError(concat("a message slot has ", received.size(), " bytes, its header says ", sizeof(header), " + ",
                           description, " + ", payload));
  return header;
}

std::vector<at::Tensor> make_tensors(const SlotHeader& header, ConstBytes description, const Allocate& allocate) {
  std::vector<at::Tensor> tensors;
  for (const Described& tensor : read_description(header, description))
    tensors.push_back(tensor.defined ? allocate(tensor.sizes, tensor.dtype) : at::Tensor());
  return tensors;
}

void copy_payload(const SlotHeader& header, ConstBytes received, const std::vector<at::Tensor>& tensors) {
  Cursor cursor(received.subspan(kDescriptionOffset + header.description_bytes));
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined()) cursor.read(tensor.mutable_data_ptr(), tensor.nbytes());
}

}  // namespace lockstep::mpi
