// SPDX-License-Identifier: Apache-2.0
//
// The AMD GEMM cure. MKL, which LibTorch's CPU build links, takes its slow generic path on CPUs that are not Intel's:
// float32 matrix products run at half speed on AMD machines with AVX-512 (98 of 225 GFLOP/s a core on Zen 5). MKL asks
// an internal function, mkl_serv_intel_cpu_true(), and a definition of it in a library that is linked before torch
// answers instead.
//
// liblockstep.so exports it. It answers yes only on an AMD CPU that has the instructions and when nobody opted out
// (kernels.gemm: default, or LOCKSTEP_GEMM=default in the environment). The answer is a kernel choice: numerics,
// recorded in the run's log and fingerprint. No torch here.
#pragma once

#include <string>

namespace lockstep {

struct GemmPath {
  bool cured = false;      ///< whether MKL is told to take its AVX-512/AVX2 path on this AMD CPU
  bool effective = false;  ///< whether our answer is the one that the process resolves (false: torch was linked first)
  std::string reason;      ///< one line for the log
};

/// kernels.gemm from the config; call before the first matrix product of the process (MKL asks once).
void opt_out_of_gemm_cure();

GemmPath gemm_path();
/// "avx512" | "avx2" | "default": the instruction set of the CPU, for fingerprints.
std::string cpu_isa();

}  // namespace lockstep

/// Called by MKL. Do not call.
extern "C" int mkl_serv_intel_cpu_true();
