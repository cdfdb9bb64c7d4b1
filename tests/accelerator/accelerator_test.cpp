// SPDX-License-Identifier: Apache-2.0
//
// The simulated accelerator itself: what it must find, and what it must not.
#include "tests/accelerator/accelerator.hpp"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <torch/csrc/autograd/autograd.h>

#include "runtime/base/clock.hpp"
#include "runtime/device/stopwatch.hpp"
#include "tests/accelerator/fixture.hpp"
#include "tests/test.hpp"

using namespace lockstep;
using namespace lockstep::test;

namespace {

c10::Stream new_stream(int device = 0) {
  return c10::impl::VirtualGuardImpl(sim(device).type()).getNewStream(sim(device));
}

at::Tensor ones_on(const c10::Stream& stream) {
  const c10::StreamGuard guard(stream);
  return at::ones({64}, at::TensorOptions(stream.device()));
}

/// What `second` makes of x, behind the work of `first`; `used`: an event behind that.
at::Tensor read_behind(const c10::Stream& first, const at::Tensor& x, const c10::Stream& second, c10::Event& used) {
  c10::Event made(sim().type());
  made.record(first);
  made.block(second);
  const c10::StreamGuard guard(second);
  const at::Tensor y = x + 1;
  used.record(second);
  return y;
}

}  // namespace

TEST_CASE("work of another stream without an event between is a race, with one it is not", "[contract]") {
  const Simulated simulated;
  const c10::Stream first = new_stream(), second = new_stream();
  const at::Tensor x = ones_on(first);
  const bool waits = GENERATE(false, true);
  if (waits) {
    c10::Event event(sim().type());
    event.record(first);
    event.block(second);
  }
  {
    const c10::StreamGuard guard(second);
    const at::Tensor y = x + 1;
    const at::Tensor z = y * 2;  // in its own order
  }
  c10::Event used(sim().type());
  used.record(second);
  used.block(first);
  if (waits) {
    CHECK(Accelerator::findings().empty());
  } else {
    REQUIRE(Accelerator::findings().size() == 1);
    CHECK_THAT(Accelerator::findings()[0], Catch::StartsWith("data race: aten::add on stream") &&
                                               Catch::Contains("reads what aten::fill_") &&
                                               Catch::EndsWith("without an event between"));
    Accelerator::reset();
  }
}

TEST_CASE("writing what another stream may still read is a race", "[contract]") {
  const Simulated simulated;
  const c10::Stream first = new_stream(), second = new_stream();
  at::Tensor x = ones_on(first);
  c10::Event used(sim().type());
  const at::Tensor y = read_behind(first, x, second, used);
  const bool waits = GENERATE(false, true);
  if (waits) used.block(first);
  {
    const c10::StreamGuard guard(first);
    x.add_(1);
  }
  CHECK(Accelerator::findings().size() == (waits ? 0 : 1));
  Accelerator::reset();
}

TEST_CASE("memory that goes back to its stream while another one may use it is found", "[contract]") {
  const Simulated simulated;
  const c10::Stream first = new_stream(), second = new_stream();
  at::Tensor x = ones_on(first);
  c10::Event used(sim().type());
  const at::Tensor y = read_behind(first, x, second, used);
  SECTION("nobody has waited") {
    x.reset();
    REQUIRE(Accelerator::findings().size() == 1);
    CHECK_THAT(Accelerator::findings()[0],
               Catch::StartsWith("freed early: a block of stream") && Catch::Contains("that aten::add on stream"));
    Accelerator::reset();
  }
  SECTION("its stream waits for the other") {
    used.block(first);
    x.reset();
    CHECK(Accelerator::findings().empty());
  }
  SECTION("the host has seen that it is over") {
    Accelerator::set_lag(2);
    used.record(second);
    CHECK_FALSE(used.query());
    CHECK_FALSE(used.query());
    CHECK(used.query());
    x.reset();
    CHECK(Accelerator::findings().empty());
    CHECK(Accelerator::counts().waits == 0);
  }
}

TEST_CASE("a copy to the host is poison until somebody has waited for it, and a blocking one is a wait", "[contract]") {
  const Simulated simulated;
  const c10::Stream stream = new_stream();
  const at::Tensor x = ones_on(stream);
  const at::Tensor host = at::empty({64}, at::TensorOptions().pinned_memory(true));
  c10::Event done(sim().type());
  {
    const c10::StreamGuard guard(stream);
    host.copy_(x, /*non_blocking=*/true);
    done.record(stream);
  }
  CHECK(host.isnan().all().item<bool>());
  CHECK(done.query());
  CHECK(host.eq(1).all().item<bool>());
  CHECK(Accelerator::counts().waits == 0);
  {
    const c10::StreamGuard guard(stream);
    CHECK(x.cpu().eq(1).all().item<bool>());
    CHECK(x.sum().item<double>() == 64);
  }
  CHECK(Accelerator::counts().waits == 2);
  CHECK(Accelerator::counts().to_host_bytes == 2 * 256 + 4);
}

TEST_CASE("pinned memory may be let go of while a copy is on its way, which then goes nowhere", "[contract]") {
  const Simulated simulated;
  const c10::Stream stream = new_stream();
  const c10::StreamGuard guard(stream);
  at::Tensor there = at::ones({64}, at::TensorOptions().pinned_memory(true)).to(sim(), /*non_blocking=*/true);
  at::empty({64}, at::TensorOptions().pinned_memory(true)).copy_(there, /*non_blocking=*/true);
  CHECK(there.eq(1).all().item<bool>());
}

TEST_CASE("a time is that between two events, once they are over", "[contract]") {
  const Simulated simulated;
  const DeviceStream stream(sim());
  const DeviceStream::Scope scope(stream);
  Stopwatch watch(stream);
  const double before_us = now_us();
  const Stopwatch::Mark begin = watch.mark();
  const at::Tensor x = at::ones({64}, at::TensorOptions().device(sim()));
  const Stopwatch::Mark end = watch.mark();
  CHECK(Accelerator::counts().waits == 0);
  watch.wait(begin, end);
  CHECK(before_us <= watch.us(begin));
  CHECK(watch.us(begin) <= watch.us(end));
  CHECK(watch.us(end) <= now_us());

  Stopwatch host{DeviceStream(at::kCPU)};
  const double us = host.us(host.mark());
  CHECK(before_us <= us);
  CHECK(us <= now_us());
}

TEST_CASE("kernels and their backward give the CPU's numbers", "[contract]") {
  const Simulated simulated;
  const DeviceStream stream(sim());
  const DeviceStream::Scope scope(stream);  // backward on this thread, as workers have it
  const auto compare = [](const char* what, const auto& function, const at::Tensor& input,
                          bool takes_another_way = false) {
    INFO(what);
    const auto run = [&](at::Device device) {
      const at::Tensor leaf = input.to(device).requires_grad_(true);
      const at::Tensor output = function(leaf);
      const at::Tensor gradient = torch::autograd::grad({output}, {leaf}, {at::ones_like(output)})[0];
      return std::pair(output.detach().cpu(), gradient.cpu());
    };
    const auto [output, gradient] = run(sim());
    const auto [expected_output, expected_gradient] = run(at::kCPU);
    const double tolerance = takes_another_way ? 1e-3 : 0;
    CHECK(at::allclose(output, expected_output, tolerance, tolerance));
    CHECK(at::allclose(gradient, expected_gradient, tolerance, tolerance));
  };
  const auto rank_one = [](const at::Tensor& like, std::int64_t size) {
    return at::linspace(-1, 1, size, like.options().requires_grad(false));
  };
  const at::Tensor x = at::linspace(-2, 3, 2 * 3 * 8 * 8).reshape({2, 3, 8, 8});
  compare(
      "gelu, softmax",
      [](const at::Tensor& t) {
        return at::gelu(t).transpose(1, 2).reshape({-1, 8}).softmax(1);
      },
      x);
  compare(
      "layer norm", [&](const at::Tensor& t) { return at::layer_norm(t, {8}, rank_one(t, 8), rank_one(t, 8)); }, x,
      true);
  compare(
      "convolution",
      [&](const at::Tensor& t) {
        return at::convolution(t, rank_one(t, 4 * 3 * 3 * 3).reshape({4, 3, 3, 3}), rank_one(t, 4), {1, 1}, {1, 1},
                               {1, 1}, false, {0, 0}, 1);
      },
      x);
  compare(
      "transposed convolution",
      [&](const at::Tensor& t) {
        return at::convolution(t, rank_one(t, 3 * 4 * 2 * 2).reshape({3, 4, 2, 2}), rank_one(t, 4), {2, 2}, {0, 0},
                               {1, 1}, true, {0, 0}, 1);
      },
      x);
  compare(
      "attention", [](const at::Tensor& t) { return at::scaled_dot_product_attention(t, t, t, {}, 0.0, true).clone(); },
      at::linspace(-2, 3, 1 * 2 * 4 * 8).reshape({1, 2, 4, 8}), true);
  CHECK(Accelerator::findings().empty());
}
