// SPDX-License-Identifier: Apache-2.0
//
// LibTorch's switches of devices: whose job sets them, and to what.
#include "runtime/training/device_kernels.hpp"

#include <ATen/Context.h>

#include "tests/accelerator/fixture.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

/// All of them, as LibTorch has them when a process begins, and again at the end.
class Switches {
 public:
  Switches() { reset(); }
  ~Switches() { reset(); }
  Switches(const Switches&) = delete;
  Switches& operator=(const Switches&) = delete;

  static std::string now() {
    const at::Context& context = at::globalContext();
    return concat(context.deterministicAlgorithms(), context.deterministicAlgorithmsWarnOnly(),
                  context.deterministicFillUninitializedMemory(), context.deterministicCuDNN(),
                  context.benchmarkCuDNN(), " ", context.allowTF32CuBLAS(), context.allowTF32CuDNN());
  }

 private:
  static void reset() {
    at::Context& context = at::globalContext();
    context.setDeterministicAlgorithms(false, false);
    context.setDeterministicFillUninitializedMemory(true);
    context.setDeterministicCuDNN(false);
    context.setBenchmarkCuDNN(true);
    context.setAllowTF32CuBLAS(false);
    context.setAllowTF32CuDNN(true);
  }
};

}  // namespace

TEST_CASE("a job on CPUs touches none of the switches of devices", "[contract]") {
  const Switches switches;
  const std::string before = Switches::now();
  set_device_kernels({}, {at::kCPU, at::kCPU});
  KernelsConfig other;
  other.deterministic = false;
  other.float32_matmul = Float32Matmul::tf32;
  set_device_kernels(other, {at::kCPU});
  CHECK(Switches::now() == before);
}

TEST_CASE("a job with a device is deterministic and exact unless it is told otherwise", "[contract]") {
  const Simulated simulated;
  const Switches switches;
  const std::vector<at::Device> devices = {at::kCPU, sim()};
  KernelsConfig kernels;
  set_device_kernels(kernels, devices);
  CHECK(Switches::now() == "10010 00");
  kernels.deterministic = false;
  kernels.float32_matmul = Float32Matmul::tf32;
  set_device_kernels(kernels, devices);
  CHECK(Switches::now() == "00000 11");
  kernels.deterministic = true;
  set_device_kernels(kernels, devices);
  CHECK(Switches::now() == "10010 11");
}
