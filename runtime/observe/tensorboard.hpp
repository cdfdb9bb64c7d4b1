// SPDX-License-Identifier: Apache-2.0
//
// Scalars for TensorBoard: an event file beside the metrics. Nothing else of TensorBoard, so no protobuf and no
// TensorFlow; the few fields are encoded by hand.
//
// The file is a sequence of TFRecords (tensorflow/core/lib/io/record_writer.h), little-endian:
//
//   uint64 length | uint32 masked crc32c of the 8 length bytes | length bytes of data | uint32 masked crc32c of the
//   data
//
// each an Event (tensorflow/core/util/event.proto: 1 double wall_time, 2 int64 step, 3 string file_version, 5 Summary,
// 7 SessionLog) whose Summary (tensorflow/core/framework/summary.proto) has one Value (1 string tag, 2 float
// simple_value). The first one holds only the version, "brain.Event:2". A job that goes on begins with a SessionLog of
// status START (1) at its first step: TensorBoard forgets what the folder's earlier files have from that step on.
// TensorBoard keeps scalars as float32: exact ones are in the metrics.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>

namespace lockstep {

/// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78; RFC 3720, appendix B.4): "123456789" gives 0xe3069283.
std::uint32_t crc32c(std::string_view bytes);
/// As TFRecords store it: rotated right by 15 plus 0xa282ead8, so that a checksum over data with checksums in it is
/// sound.
std::uint32_t masked_crc32c(std::string_view bytes);

/// Seconds since 1970.
double unix_time_s();

class TensorBoardWriter {
 public:
  /// Creates events.out.tfevents.TIME.HOST in `folder`, which must exist; with ".1", ".2", ... behind it when a writer
  /// of the same second has that name. Throws UserError when it cannot. `first_step` >= 0: the folder is that of a run
  /// that goes on with this step.
  explicit TensorBoardWriter(const std::string& folder, std::int64_t first_step = -1);

  /// One point of the curve `tag` ("loss", "workers/0/wait_ms"); NaN and infinities are allowed. With the kernel when
  /// the call returns. Throws Error when the disk takes no more.
  void scalar(std::string_view tag, std::int64_t step, double value, double wall_time_s = unix_time_s());

  const std::string& path() const { return path_; }

 private:
  void write(std::string_view event);

  std::string path_;
  std::ofstream out_;
};

}  // namespace lockstep
