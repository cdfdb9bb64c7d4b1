// SPDX-License-Identifier: Apache-2.0
//
// What a job leaves in this process.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/element_range.hpp"
#include "runtime/layer/context.hpp"
#include "runtime/observe/span_recorder.hpp"

namespace lockstep {

/// Of what a hash is. A buffer's index is that of ModelGraph::buffers.
enum class Hashed {
  gradient,  ///< summed over micro-batches, replicas and holders, before clipping: of each block of kNormBlock elements
  value,     ///< as the update left it
  buffer,    ///< as the step left it
};

/// 64-bit hash of one parameter or buffer in one optimizer step, for `lockstep verify`.
struct ParameterHash {
  std::int64_t step = 0;
  int parameter = -1;
  Hashed what = Hashed::gradient;
  int block = 0;  ///< of a gradient
  std::uint64_t hash = 0;
};

/// Hashes of blocks [begin, end) of a summed gradient, each of kNormBlock elements but the last; of a sparse one in
/// their place of its elements and of the numbers of its rows.
void hash_gradient(std::int64_t step, int parameter, const Gradient& gradient, std::vector<ParameterHash>& hashes,
                   std::optional<ElementRange> elements = {});

/// One parameter at the end of a job, as this process holds it.
struct FinalParameter {
  int index = -1;  ///< in ModelGraph::parameters
  std::uint64_t hash = 0;
  at::Tensor value;                       ///< detached; shared with nobody once the job has returned
  std::optional<ElementRange> part = {};  ///< of a table of which other processes have the other rows; else all of it
};

/// One buffer at the end of a job, as this process holds it.
struct FinalBuffer {
  int index = -1;  ///< in ModelGraph::buffers
  std::uint64_t hash = 0;
  at::Tensor value;
};

struct JobOutcome {
  std::vector<FinalParameter> parameters;  ///< by row, then model order; tied copies appear once per row that holds one
  std::vector<FinalBuffer> buffers;        ///< by row, then model order
  std::vector<ParameterHash> hashes;       ///< with record_hashes, by row
  std::string not_finite;                  ///< of the parameters: "fc.0.weight[3, 5] is nan"; empty: all are finite
  Recorded recorded;

  /// With its hash, which is made here, and a look at whether it is finite.
  void add(FinalParameter parameter, const std::string& name, bool trainable);
};

}  // namespace lockstep
