// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/device_kernels.hpp"

#include <ATen/Context.h>

#include <algorithm>

namespace lockstep {

void set_device_kernels(const KernelsConfig& kernels, const std::vector<at::Device>& devices) {
  if (std::all_of(devices.begin(), devices.end(), [](at::Device device) { return device.is_cpu(); })) return;
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(kernels.deterministic, /*warn_only=*/false);
  // It comes with the former, and fills every tensor that at::empty makes: of a large one 2000 times its price.
  context.setDeterministicFillUninitializedMemory(false);
  context.setDeterministicCuDNN(kernels.deterministic);
  if (kernels.deterministic) context.setBenchmarkCuDNN(false);  // it would choose kernels by timing
  // Not CUBLAS_WORKSPACE_CONFIG: LibTorch gives every stream a workspace of its own, and takes a tenth of a millisecond
  // to read the variable, with every product. Not setFloat32MatmulPrecision, which switches the CPU's oneDNN too. Of
  // cuDNN LibTorch's default is on.
  const bool tf32 = kernels.float32_matmul == Float32Matmul::tf32;
  context.setAllowTF32CuBLAS(tf32);
  context.setAllowTF32CuDNN(tf32);
}

}  // namespace lockstep
