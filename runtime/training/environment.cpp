// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/environment.hpp"

#include <torch/version.h>

#include "runtime/layer/gemm_path.hpp"

namespace lockstep {

std::string resolve_kernels(const Config& config) {
  if (config.kernels.gemm == "default") opt_out_of_gemm_cure();
  return gemm_path().reason;
}

Environment environment_of(const Config& config) {
  const GemmPath gemm = gemm_path();
  return {{{"isa", cpu_isa()},
           {"gemm", gemm.cured && gemm.effective ? "mkl-" + cpu_isa() : "mkl-default"},
           {"torch", TORCH_VERSION},
           {"threads", std::to_string(config.workers.threads)},
           {"precision", config.train.precision},
           {"micro_batches", std::to_string(config.train.micro_batches)},
           {"batch", std::to_string(config.train.batch)},
           {"seed", std::to_string(config.seed)}}};
}

}  // namespace lockstep
