// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/config/config.hpp"

namespace lockstep {

/// Where numbers come from: ISA, GEMM path, the libraries that are loaded, what their operators compute, threads,
/// precision, micro-batches. Runs with different ones cannot be compared bit by bit.
struct Environment {
  std::vector<std::pair<std::string, std::string>> entries;
};
/// How the entries of operator_probe() begin: "operator.matmul".
inline constexpr const char* kOperator = "operator.";
/// The cards of a process, in which ranks of one job may differ.
inline constexpr const char* kCard = "card";
/// Of this process. Multiplies matrices when it is first called.
Environment environment_of(const Config& config);
/// 64-bit hash of the file that this library was loaded from, as hex: ranks with different builds do not match.
std::string library_hash();
/// Takes kernels.gemm into account; before the first matrix product. Returns the line for the log. Throws UserError
/// where the LibTorch that is loaded is not the one that this library was built with.
std::string resolve_kernels(const Config& config);

/// "2.13.0": what is loaded, and what this library was built with.
std::string loaded_libtorch();
std::string built_libtorch();
/// Why a library that was built with one version cannot call the other; empty: it can. Tables of functions and sizes of
/// objects change with every minor version, and nothing but this notices.
std::string libtorch_mismatch(const std::string& built, const std::string& loaded);

}  // namespace lockstep
