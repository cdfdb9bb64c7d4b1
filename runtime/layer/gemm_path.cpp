// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/gemm_path.hpp"

#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace lockstep {
namespace {

// The one process-wide switch that cannot be an argument: MKL calls us without any.
std::atomic<bool> opted_out{false};

bool vendor_is(const char* twelve_letters) {
#if defined(__x86_64__)
  unsigned eax = 0, vendor[4] = {};
  if (!__get_cpuid(0, &eax, &vendor[0], &vendor[2], &vendor[1])) return false;
  return std::memcmp(vendor, twelve_letters, 12) == 0;
#else
  static_cast<void>(twelve_letters);
  return false;
#endif
}

bool is_amd() {
  return vendor_is("AuthenticAMD");
}

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

bool environment_opts_out() {
  const char* choice = std::getenv("LOCKSTEP_GEMM");
  return choice && std::strcmp(choice, "default") == 0;
}

bool decide() {
  return is_amd() && has_avx2() && !opted_out.load() && !environment_opts_out();
}

// Whether the answer that the process resolves is in this library. (Its address, taken here, would be the one that was
// found first, whoever's it is.)
bool answer_is_ours() {
  Dl_info found{}, ours{};
  void* const answer = dlsym(RTLD_DEFAULT, "mkl_serv_intel_cpu_true");
  return answer && dladdr(answer, &found) != 0 && dladdr(reinterpret_cast<void*>(&decide), &ours) != 0 &&
         found.dli_fbase == ours.dli_fbase;
}

}  // namespace

void opt_out_of_gemm_cure() {
  opted_out.store(true);
}

std::string cpu_isa() {
  return has_avx512() ? "avx512" : has_avx2() ? "avx2" : "default";
}

GemmPath gemm_path() {
  GemmPath path;
  path.cured = decide();
  path.effective = answer_is_ours();
  if (!is_amd())
    path.reason = "MKL chooses its own path (not an AMD CPU)";
  else if (!has_avx2())
    path.reason = "MKL's generic path (this CPU has no AVX2)";
  else if (!path.cured)
    path.reason = "MKL's generic path, as asked: matrix products run at about half speed on this AMD CPU";
  else if (!path.effective)
    path.reason =
        "MKL's generic path: torch was linked before liblockstep, link liblockstep first for about twice the speed";
  else
    path.reason = "MKL's " + cpu_isa() + " path on this AMD CPU";
  return path;
}

}  // namespace lockstep

extern "C" int mkl_serv_intel_cpu_true() {
  // On Intel CPUs the true answer, which is what MKL's own function gives.
  return lockstep::vendor_is("GenuineIntel") || lockstep::decide() ? 1 : 0;
}
