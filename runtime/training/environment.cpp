// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/environment.hpp"

#include <ATen/Version.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iterator>
#include <map>
#include <mutex>
#include <sstream>

#include "runtime/base/text.hpp"
#include "runtime/layer/gemm_path.hpp"
#include "runtime/layer/random.hpp"
#include "runtime/training/operator_probe.hpp"

namespace lockstep {
namespace {

/// What stands between `before` and the first of `ends`: "2.13.0" of "..., TORCH_VERSION=2.13.0, USE_CUDA=0, ...".
std::string part_of(const std::string& text, const std::string& before, const std::string& ends) {
  const std::size_t found = text.find(before);
  if (found == std::string::npos) return "none";
  const std::size_t begin = found + before.size();
  return text.substr(begin, text.find_first_of(ends, begin) - begin);
}

/// Computed once per process: nothing that it depends on changes in one.
const std::vector<std::pair<std::string, std::string>>& operators(Precision precision) {
  static std::mutex mutex;
  static std::map<Precision, std::vector<std::pair<std::string, std::string>>> probes;
  const std::lock_guard lock(mutex);
  auto& probe = probes[precision];
  if (probe.empty()) probe = operator_probe(precision);
  return probe;
}

std::string hash_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::ostringstream out;
  out << std::hex << std::setw(16) << std::setfill('0') << mix_seed(0, bytes.size(), 0, bytes);
  return out.str();
}

}  // namespace

std::string loaded_libtorch() {
  return part_of(at::show_config(), "TORCH_VERSION=", ",\n");
}

std::string built_libtorch() {
  return concat(TORCH_VERSION_MAJOR, ".", TORCH_VERSION_MINOR, ".", TORCH_VERSION_PATCH);
}

std::string libtorch_mismatch(const std::string& built, const std::string& loaded) {
  const auto minor = [](const std::string& version) {
    return version.substr(0, version.find('.', version.find('.') + 1));
  };
  if (minor(built) == minor(loaded)) return "";
  return concat("LibTorch ", loaded, " is loaded, but this Lockstep was built with ", built,
                ", and calls of one minor version do not fit the other: let LD_LIBRARY_PATH name the lib folder of a "
                "LibTorch ",
                minor(built), ", or build with the other one (LOCKSTEP_TORCH_ROOT, docs/install.md)");
}

std::string resolve_kernels(const Config& config) {
  if (const std::string mismatch = libtorch_mismatch(built_libtorch(), loaded_libtorch()); !mismatch.empty())
    throw UserError(mismatch);
  if (config.kernels.gemm == GemmChoice::libtorch) opt_out_of_gemm_cure();
  return gemm_path().reason;
}

Environment environment_of(const Config& config) {
  resolve_kernels(config);  // the probe multiplies matrices
  const GemmPath gemm = gemm_path();
  Environment environment{{{"isa", cpu_isa()},
                           {"gemm", gemm.cured && gemm.effective ? "mkl-" + cpu_isa() : "mkl-default"},
                           {"torch", loaded_libtorch()},
                           {"mkl", part_of(at::get_mkl_version(), "Version ", " -")},
                           {"onednn", part_of(at::get_mkldnn_version(), "MKL-DNN ", " ")},
                           {"aten", at::get_cpu_capability()},
                           {"threads", std::to_string(config.workers.threads)},
                           {"precision", to_string(config.train.precision)},
                           {"micro_batches", std::to_string(config.train.micro_batches)},
                           {"batch", std::to_string(config.train.batch)},
                           {"seed", std::to_string(config.seed)}}};
  for (const auto& [name, bits] : operators(config.train.precision))
    environment.entries.emplace_back(kOperator + name, bits);
  for (const std::string& plugin : config.plugins)
    environment.entries.emplace_back("plugin " + std::filesystem::path(plugin).filename().string(),
                                     hash_of_file(plugin));
  return environment;
}

std::string library_hash() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&library_hash), &info) == 0 || !info.dli_fname) return "unknown";
  return hash_of_file(info.dli_fname);
}

}  // namespace lockstep
