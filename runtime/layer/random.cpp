// SPDX-License-Identifier: Apache-2.0
#include "runtime/layer/random.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUFunctions.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/library.h>

#include <unordered_map>

#include "runtime/base/check.hpp"
#include "runtime/layer/context.hpp"
#include "runtime/layer/philox.hpp"
#include "runtime/layer/quiet.hpp"

namespace lockstep {
namespace {

struct Source {
  bool fresh = false;  // seeded lazily: most layers draw nothing, and seeding a Mersenne twister costs a microsecond
  at::Generator generator;
};

struct Stream {
  bool active = false;
  std::uint64_t seed = 0;
  std::unordered_map<c10::Device, Source> sources;
  DropoutKernel dropout = DropoutKernel::torch;
  std::uint32_t philox_calls = 0;
};

Stream& this_thread() {
  thread_local Stream stream;
  return stream;
}

using MaybeGenerator = std::optional<at::Generator>;

at::Generator new_generator(c10::Device device) {
  if (device.is_cpu()) return at::detail::createCPUGenerator();
  return at::globalContext().getAcceleratorHooksInterface(device.type()).getNewGenerator(device.index());
}

/// The thread's own one, as the scope has seeded it and its calls have left it.
const at::Generator& generator_of(Stream& stream, c10::Device device) {
  Source& source = stream.sources[device];
  if (!source.generator.defined()) source.generator = new_generator(device);
  if (!source.fresh) {
    std::lock_guard<std::mutex> lock(source.generator.mutex());
    source.generator.set_current_seed(stream.seed);
    source.fresh = true;
  }
  return source.generator;
}

MaybeGenerator choose(const MaybeGenerator& given) {
  Stream& stream = this_thread();
  if (given.has_value() || !stream.active) return given;
  return generator_of(stream, at::kCPU);
}

// Each kernel is LibTorch's own, with the generator chosen first.
void register_kernels(torch::Library& library) {
  using at::Tensor;
  library.impl("bernoulli_.float", [](Tensor& self, double p, MaybeGenerator g) -> Tensor& {
    return at::cpu::bernoulli_(self, p, choose(g));
  });
  library.impl("bernoulli_.Tensor", [](Tensor& self, const Tensor& p, MaybeGenerator g) -> Tensor& {
    return at::cpu::bernoulli_(self, p, choose(g));
  });
  library.impl("bernoulli.out", [](const Tensor& self, MaybeGenerator g, Tensor& out) -> Tensor& {
    return at::cpu::bernoulli_outf(self, choose(g), out);
  });
  library.impl("uniform_", [](Tensor& self, double from, double to, MaybeGenerator g) -> Tensor& {
    return at::cpu::uniform_(self, from, to, choose(g));
  });
  library.impl("normal_", [](Tensor& self, double mean, double std, MaybeGenerator g) -> Tensor& {
    return at::cpu::normal_(self, mean, std, choose(g));
  });
  library.impl("exponential_", [](Tensor& self, double lambda, MaybeGenerator g) -> Tensor& {
    return at::cpu::exponential_(self, lambda, choose(g));
  });
  library.impl("geometric_", [](Tensor& self, double p, MaybeGenerator g) -> Tensor& {
    return at::cpu::geometric_(self, p, choose(g));
  });
  library.impl("cauchy_", [](Tensor& self, double median, double sigma, MaybeGenerator g) -> Tensor& {
    return at::cpu::cauchy_(self, median, sigma, choose(g));
  });
  library.impl("log_normal_", [](Tensor& self, double mean, double std, MaybeGenerator g) -> Tensor& {
    return at::cpu::log_normal_(self, mean, std, choose(g));
  });
  library.impl("random_", [](Tensor& self, MaybeGenerator g) -> Tensor& { return at::cpu::random_(self, choose(g)); });
  library.impl("random_.to", [](Tensor& self, std::int64_t to, MaybeGenerator g) -> Tensor& {
    return at::cpu::random_(self, to, choose(g));
  });
  library.impl("random_.from",
               [](Tensor& self, std::int64_t from, std::optional<std::int64_t> to, MaybeGenerator g) -> Tensor& {
                 return at::cpu::random_(self, from, to, choose(g));
               });
  library.impl("randperm.generator_out", [](std::int64_t n, MaybeGenerator g, Tensor& out) -> Tensor& {
    return at::cpu::randperm_outf(n, choose(g), out);
  });
  library.impl("multinomial", [](const Tensor& self, std::int64_t samples, bool replacement, MaybeGenerator g) {
    return at::cpu::multinomial(self, samples, replacement, choose(g));
  });
  library.impl("poisson", [](const Tensor& self, MaybeGenerator g) { return at::cpu::poisson(self, choose(g)); });
  library.impl("binomial", [](const Tensor& count, const Tensor& p, MaybeGenerator g) {
    return at::cpu::binomial(count, p, choose(g));
  });
  library.impl("_standard_gamma",
               [](const Tensor& self, MaybeGenerator g) { return at::cpu::_standard_gamma(self, choose(g)); });
  library.impl("_sample_dirichlet",
               [](const Tensor& self, MaybeGenerator g) { return at::cpu::_sample_dirichlet(self, choose(g)); });
}

struct Registration {
  torch::Library library{torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__};
  Registration() {
    const Quiet quiet;  // the dispatcher warns once that kernels are overridden
    register_kernels(library);
  }
};
const Registration kRegistration;

std::uint64_t splitmix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

std::uint64_t mix_seed(std::uint64_t seed, std::uint64_t a, std::uint64_t b, std::string_view name) {
  std::uint64_t name_hash = 0xcbf29ce484222325ULL;  // FNV-1a, 64 bits
  for (const char c : name) name_hash = (name_hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return splitmix64(splitmix64(splitmix64(splitmix64(seed) ^ a) ^ b) ^ name_hash);
}

RandomPlace random_place() {
  const Stream& stream = this_thread();
  LOCKSTEP_CHECK(stream.active, "the place of a stream outside a scope");
  RandomPlace place{stream.seed, stream.dropout, stream.philox_calls};
  for (const auto& [device, source] : stream.sources)
    if (source.fresh) place.generators.emplace_back(device, source.generator.get_state());
  return place;
}

RandomScope::RandomScope(const RandomPlace& place) : RandomScope(place.seed, place.dropout) {
  Stream& stream = this_thread();
  stream.philox_calls = place.philox_calls;
  for (const auto& [device, state] : place.generators) {
    Source& source = stream.sources[device];
    std::lock_guard<std::mutex> lock(source.generator.mutex());
    source.generator.set_state(state);
    source.fresh = true;
  }
}

RandomScope::RandomScope(std::uint64_t seed, DropoutKernel dropout) {
  Stream& stream = this_thread();
  if (stream.active)
    throw ModelError(
        "a RandomScope is open on this thread already: inside forward() random operators draw from the "
        "layer's own stream, and need none");
  stream.active = true;
  stream.seed = seed;
  for (auto& [device, source] : stream.sources) source.fresh = false;
  stream.dropout = dropout;
  stream.philox_calls = 0;
}

RandomScope::~RandomScope() {
  this_thread().active = false;
}

bool libtorch_draws_for(const at::Tensor& x) {
  const Stream& stream = this_thread();
  return !stream.active || (stream.dropout == DropoutKernel::torch && x.device().is_cpu());
}

at::Tensor dropout(const LayerContext& context, const at::Tensor& x, double p) {
  return context.training() ? dropout(x, p) : x;
}

at::Tensor dropout(const at::Tensor& x, double p) {
  if (p == 0 || x.numel() == 0 || libtorch_draws_for(x)) return at::dropout(x, p, /*train=*/true);
  Stream& stream = this_thread();
  const double keep = 1 - p;
  const at::Tensor kept =
      stream.dropout == DropoutKernel::philox
          ? philox_mask(x.sizes(), x.device(), keep, stream.seed, stream.philox_calls++)
          : at::empty(x.sizes(), x.options().dtype(at::kBool)).bernoulli_(keep, generator_of(stream, x.device()));
  return x.mul(kept).mul_(keep == 0 ? 0 : 1 / keep);  // as LibTorch's native_dropout
}

}  // namespace lockstep
