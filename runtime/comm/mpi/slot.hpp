// SPDX-License-Identifier: Apache-2.0
//
// Internal to runtime/comm/mpi: the bytes of one message, and the tags it travels on. No MPI in here.
//
// A message is one slot, and, when it does not fit, bulk blocks behind it on the edge's bulk tag:
//
//   slot:  SlotHeader | description (dtype, shape of each tensor) | payload        one MPI message, at most slot_bytes
//   bulk:  description, if it did not fit into the slot; then the payload of each tensor in turn, unpacked, in blocks
//   of at
//          most block_bytes, if all payloads together did not fit
//
// Native byte order: all ranks run the same binary on the same kind of machine (the magic number shows if not).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/comm/message.hpp"

namespace lockstep::mpi {

enum class TagKind : int { header = 0, bulk = 1 };
constexpr int kHeartbeatTag = 0;  ///< no edge has it

/// Throws CommError when the edge does not fit under `tag_limit` (MPI_TAG_UB; 32767, 16382 edges a pair, is
/// guaranteed).
int pack_tag(TagKind kind, int edge, int tag_limit);

struct SlotHeader {
  std::uint32_t magic = 0;
  std::uint16_t version = 0;
  std::uint8_t description_in_slot = 0;
  std::uint8_t payload_in_slot = 0;
  std::int64_t sequence = 0;
  std::int32_t micro_batch = -1;
  std::int32_t edge = 0;
  std::uint64_t tensors = 0;
  std::uint64_t description_bytes = 0;
  std::uint64_t payload_bytes = 0;
  std::uint64_t block_bytes = 0;  ///< the sender's; the receiver follows it
  std::uint64_t reserved = 0;
};
static_assert(sizeof(SlotHeader) == 64);

using Bytes = std::span<std::byte>;
using ConstBytes = std::span<const std::byte>;

/// What pack() put into the slot and what is left for the bulk tag.
struct Packed {
  std::int64_t slot_bytes = 0;         ///< used bytes of the slot
  std::vector<std::byte> description;  ///< empty when it is in the slot
  bool payload_in_slot = false;
};

/// Writes header, description and payload of a message to `slot`, as far as they fit; tensors of a device never do.
Packed pack(const Message& message, int edge, std::int64_t block_bytes, Bytes slot);

/// Reads and checks the header at the front of the received bytes. Throws CommError naming what differs.
SlotHeader read_header(ConstBytes received, int edge);

/// Makes a tensor; the default is at::empty on the CPU. Called by whichever thread polls.
using Allocate = std::function<at::Tensor(at::IntArrayRef sizes, at::ScalarType dtype)>;

/// Allocates the described tensors (undefined ones stay so). Throws CommError when the description makes no sense.
std::vector<at::Tensor> make_tensors(const SlotHeader& header, ConstBytes description, const Allocate& allocate);

/// Where description and payload start in a slot that holds them.
inline constexpr std::size_t kDescriptionOffset = sizeof(SlotHeader);

/// Copies the payload that stands behind header and description in the slot into the tensors.
void copy_payload(const SlotHeader& header, ConstBytes received, const std::vector<at::Tensor>& tensors);

}  // namespace lockstep::mpi
