// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/environment.hpp"

#include <dlfcn.h>
#include <torch/version.h>

#include <fstream>
#include <iomanip>
#include <iterator>
#include <sstream>

#include "runtime/layer/gemm_path.hpp"
#include "runtime/layer/random.hpp"

namespace lockstep {

std::string resolve_kernels(const Config& config) {
  if (config.kernels.gemm == GemmChoice::libtorch) opt_out_of_gemm_cure();
  return gemm_path().reason;
}

Environment environment_of(const Config& config) {
  const GemmPath gemm = gemm_path();
  return {{{"isa", cpu_isa()},
           {"gemm", gemm.cured && gemm.effective ? "mkl-" + cpu_isa() : "mkl-default"},
           {"torch", TORCH_VERSION},
           {"threads", std::to_string(config.workers.threads)},
           {"precision", to_string(config.train.precision)},
           {"micro_batches", std::to_string(config.train.micro_batches)},
           {"batch", std::to_string(config.train.batch)},
           {"seed", std::to_string(config.seed)}}};
}

std::string library_hash() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&library_hash), &info) == 0 || !info.dli_fname) return "unknown";
  std::ifstream file(info.dli_fname, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::ostringstream out;
  out << std::hex << std::setw(16) << std::setfill('0') << mix_seed(0, bytes.size(), 0, bytes);
  return out.str();
}

}  // namespace lockstep
