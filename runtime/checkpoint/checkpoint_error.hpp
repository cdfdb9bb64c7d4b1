// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "runtime/base/error.hpp"

namespace lockstep {

/// A checkpoint that cannot be used: missing, cut short, altered, or of another model. Exit code 2: it is input. (A
/// checkpoint that cannot be written is an Error with exit code 1.)
class CheckpointError : public UserError {
 public:
  /// "FILE: MESSAGE"
  CheckpointError(const std::string& file, const std::string& message);
  /// "FILE: tensor 'NAME' at byte OFFSET: MESSAGE"; the offset is left out when negative.
  CheckpointError(const std::string& file, const std::string& tensor, std::int64_t offset, const std::string& message);

  const std::string& file() const { return file_; }
  const std::string& tensor() const { return tensor_; }  ///< empty: the error is not about one tensor
  std::int64_t offset() const { return offset_; }        ///< in the file; -1: not known

 private:
  std::string file_, tensor_;
  std::int64_t offset_ = -1;
};

}  // namespace lockstep
