// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/checkpoint_error.hpp"

#include "runtime/base/text.hpp"

namespace lockstep {
namespace {

std::string place(const std::string& file, const std::string& tensor, std::int64_t offset) {
  return concat(file, ": tensor '", tensor, "'", offset < 0 ? "" : concat(" at byte ", offset), ": ");
}

}  // namespace

CheckpointError::CheckpointError(const std::string& file, const std::string& message)
    : UserError(one_line(concat(file, ": ", message))), file_(file) {}

CheckpointError::CheckpointError(const std::string& file, const std::string& tensor, std::int64_t offset,
                                 const std::string& message)
    : UserError(one_line(place(file, tensor, offset) + message)), file_(file), tensor_(tensor), offset_(offset) {}

}  // namespace lockstep
