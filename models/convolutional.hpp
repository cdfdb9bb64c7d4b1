// SPDX-License-Identifier: Apache-2.0
//
// What cnn and unet share: 3x3 convolutions with the norm of the model's choice. Private to this folder.
#pragma once

#include "runtime/config/section.hpp"
#include "runtime/layer/model.hpp"

namespace lockstep {

/// The keys `norm` (batch | group | none; default batch) and, with group only, `groups` (default 4, must divide
/// `channels`, the smallest number of channels that a norm of the model has).
struct NormChoice {
  std::string norm = "batch";
  std::int64_t groups = 4;

  static NormChoice read(const Section& section, std::int64_t channels);
  /// Appends the norm of `channels` channels, reading and writing `entry`; nothing for none. A convolution before a
  /// norm needs no bias.
  void add(Model& model, const std::string& name, std::int64_t channels, const std::string& entry) const;
  bool none() const { return norm == "none"; }
};

/// Appends convolution (kernel 3, padding 1), norm and, with `act`, relu: NAME `conv<n>`, `norm<n>`, `act<n>` after
/// `prefix`. Reads `from`, writes `to`.
struct ConvolutionUnit {
  std::string prefix;
  std::string suffix;  ///< "1", "2": of the names
  std::int64_t in = 0, out = 0, stride = 1;
  std::string from = "x", to = "x";
  bool act = true;
};
void add_unit(Model& model, const ConvolutionUnit& unit, const NormChoice& norm);

}  // namespace lockstep
