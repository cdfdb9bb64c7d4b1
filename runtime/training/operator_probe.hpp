// SPDX-License-Identifier: Apache-2.0
//
// What LibTorch's operators compute here, as bits: versions and variables say what should be used, this says what is.
// Another instruction set, another library, or a variable that chooses among kernels (ATEN_CPU_CAPABILITY, MKL_CBWR,
// MKL_ENABLE_INSTRUCTIONS, ONEDNN_MAX_CPU_ISA; flushed denormals) shows in one of them. docs/numerics.md has the table.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/config/config.hpp"

namespace lockstep {

/// Name and hash ("matmul", "3fa2c1d0") of the results of a dozen operators on fixed inputs, by one thread, whatever
/// the job's number of threads: 10 ms, twice that with bf16 or fp64. May be the first matrix product of the process:
/// after resolve_kernels(). `precision`: products in it too.
std::vector<std::pair<std::string, std::string>> operator_probe(Precision precision);

}  // namespace lockstep
