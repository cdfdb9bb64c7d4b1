// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

#include <cstring>

#include "tests/accelerator/simulated_order.hpp"

namespace lockstep::test::simulated {
namespace {

bool is_here(const at::Tensor& tensor) {
  return tensor.defined() && tensor.device().type() == kType;
}

at::Tensor host_alias(const at::Tensor& tensor) {
  return at::from_blob(
      tensor.data_ptr(), tensor.sizes(), tensor.strides(), [](void*) {},
      at::TensorOptions(tensor.scalar_type()).device(c10::kCPU));
}

at::Tensor empty_strided_here(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype) {
  return at::detail::empty_strided_generic(sizes, strides, &device_memory(),
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype);
}

enum class Role { read, write, out };  ///< out: written, and perhaps given its size, which an alias cannot be

/// One operator: the CPU's kernel on aliases of what it is given.
class Call {
 public:
  explicit Call(const std::string& name) : name_(name) {}

  at::Tensor take(const at::Tensor& tensor, Role role) {
    if (!is_here(tensor)) {
      from_host_ = from_host_ || (tensor.defined() && tensor.dim() > 0);
      return tensor;
    }
    TORCH_CHECK(device_ < 0 || device_ == tensor.device().index(), name_, ": tensors of several devices");
    device_ = tensor.device().index();
    accesses_.push_back({tensor.storage().data(), role != Role::read});
    const at::Tensor made =
        role == Role::out ? at::empty({0}, at::TensorOptions(tensor.scalar_type())) : host_alias(tensor);
    aliases_.emplace_back(made.unsafeGetTensorImpl(), tensor);
    return made;
  }
  /// A result as one of the device's: what was handed in, or new.
  at::Tensor give(const at::Tensor& result) {
    if (!result.defined() || result.device().type() != c10::kCPU) return result;
    for (const auto& [made, given] : aliases_) {
      if (made != result.unsafeGetTensorImpl()) continue;
      if (result.data_ptr() == given.data_ptr()) return given;
      given.resize_(result.sizes());  // an output that it had to be given the size of
      host_alias(given).copy_(result);
      return given;
    }
    if (device_ < 0) return result;
    const c10::DeviceGuard guard(c10::Device(kType, static_cast<c10::DeviceIndex>(device_)));
    at::Tensor made = empty_strided_here(result.sizes(), result.strides(), result.scalar_type());
    host_alias(made).copy_(result);
    accesses_.push_back({made.storage().data(), true});
    return made;
  }
  void on(c10::Device device) {
    if (device_ < 0) device_ = device.index();
  }
  /// As every kernel of a device does, but for numbers ([]) of the host.
  void refuse_host() const { TORCH_CHECK(device_ < 0 || !from_host_, name_, ": tensors of the host and of a device"); }
  ~Call() {
    if (device_ < 0) return;
    const std::lock_guard lock(world().mutex);
    work(index_of(device_), accesses_, name_);
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  std::string name_;
  int device_ = -1;
  bool from_host_ = false;
  std::vector<Access> accesses_;
  std::vector<std::pair<c10::TensorImpl*, at::Tensor>> aliases_;
};

c10::IValue taken(Call& call, const c10::IValue& value, Role role) {
  if (value.isTensor()) return call.take(value.toTensor(), role);
  if (value.isTensorList()) {
    std::vector<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(call.take(tensor, role));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())  // indices, which may be the host's
      list.push_back(tensor && is_here(*tensor) ? std::optional(call.take(*tensor, role)) : tensor);
    return list;
  }
  if (value.isDevice() && value.toDevice().type() == kType) {
    call.on(value.toDevice());
    return c10::Device(c10::kCPU);
  }
  return value;
}

c10::IValue given(Call& call, const c10::IValue& value) {
  if (value.isTensor()) return call.give(value.toTensor());
  if (!value.isTensorList()) return value;
  std::vector<at::Tensor> list;
  for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(call.give(tensor));
  return list;
}

/// What CUDA's fused optimizers read as float32, whatever it is.
void check_steps(const c10::Argument& argument, const c10::IValue& value) {
  if (argument.name() != "state_steps") return;
  for (const at::Tensor& steps : value.toTensorVector())
    TORCH_CHECK(steps.scalar_type() == at::kFloat, "state_steps of ", steps.scalar_type());
}

void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const std::size_t arguments = schema.arguments().size(), results = schema.returns().size();
  Call call(schema.name());
  torch::jit::Stack inner;
  for (std::size_t i = 0; i < arguments; ++i) {
    const c10::Argument& argument = schema.arguments()[i];
    const bool writes = argument.alias_info() && argument.alias_info()->isWrite();
    const Role role = !writes ? Role::read : argument.kwarg_only() ? Role::out : Role::write;
    const c10::IValue& value = (*stack)[stack->size() - arguments + i];
    check_steps(argument, value);
    inner.push_back(taken(call, value, role));
  }
  call.refuse_host();
  torch::jit::drop(*stack, arguments);
  const torch::jit::Stack kept = inner;  // aliases are known by their address: none may be made in another's place
  op.callBoxed(&inner);
  for (std::size_t i = 0; i < results; ++i) stack->push_back(given(call, inner[inner.size() - results + i]));
}

at::Tensor empty_here(at::IntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                      std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(sizes, &device_memory(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   dtype.value_or(at::kFloat), format);
}

at::Tensor empty_strided_as_asked(at::IntArrayRef sizes, at::IntArrayRef strides, std::optional<at::ScalarType> dtype,
                                  std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  const c10::OptionalDeviceGuard guard(device);
  return empty_strided_here(sizes, strides, dtype.value_or(at::kFloat));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const at::Tensor source = is_here(from) ? host_alias(from) : from;
  at::Tensor target = is_here(to) ? host_alias(to) : to;
  const int device = is_here(from) ? from.device().index() : to.device().index();
  const std::vector<Access> accesses = {{from.storage().data(), false}, {to.storage().data(), true}};
  if (is_here(to)) {
    {
      World& here = world();
      const std::lock_guard lock(here.mutex);
      if (is_here(from) && from.device() != to.device()) {  // both streams wait for each other, as CUDA's copy does
        Clock both = here.streams[index_of(from.device().index())];
        join(both, here.streams[index_of(to.device().index())]);
        here.streams[index_of(from.device().index())] = here.streams[index_of(to.device().index())] = both;
        work(index_of(device), accesses, "copy_");
        join(here.streams[index_of(to.device().index())], here.streams[index_of(device)]);
      } else {
        work(index_of(device), accesses, "copy_");
      }
      // From memory that is not pinned a copy has read all of it when it returns, and need not have written it.
      if (!is_here(from) && !non_blocking) wait_for(index_of(device));
    }
    target.copy_(source);
    return to;
  }
  const bool waits = !non_blocking || !to.is_contiguous() || !to.is_pinned();
  at::Tensor now = waits ? target : at::empty_like(target);
  now.copy_(source);
  World& here = world();
  const std::lock_guard lock(here.mutex);
  const std::uint64_t tick = work(index_of(device), accesses, "copy_ to the host");
  here.counts.to_host_bytes += static_cast<std::int64_t>(to.nbytes());
  if (waits) {
    wait_for(index_of(device));
  } else {
    std::memset(target.data_ptr(), 0xff, target.nbytes());
    const char* bytes = static_cast<const char*>(now.data_ptr());
    here.pending[index_of(device)].push_back({tick, target.data_ptr(), std::vector<char>(bytes, bytes + now.nbytes())});
  }
  return to;
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  const at::Tensor value = host_alias(self);
  const std::lock_guard lock(world().mutex);
  work(index_of(self.device().index()), {{self.storage().data(), false}}, "item");
  world().counts.to_host_bytes += static_cast<std::int64_t>(self.element_size());
  wait_for(index_of(self.device().index()));
  return value.item();
}

const at::Tensor& resize_here(const at::Tensor& self, at::IntArrayRef sizes, std::optional<at::MemoryFormat>) {
  const c10::DeviceGuard guard(self.device());
  c10::TensorImpl* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(sizes);
  const std::size_t bytes = self.storage_offset() * self.element_size() + self.nbytes();
  if (bytes > self.storage().nbytes()) resize_bytes(self.storage(), bytes);
  return self;
}

at::Tensor convolution_here(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                            bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  Call call("convolution");
  return call.give(at::convolution_symint(call.take(input, Role::read), call.take(weight, Role::read),
                                          bias ? std::optional(call.take(*bias, Role::read)) : std::nullopt, stride,
                                          padding, dilation, transposed, output_padding, groups));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward_here(
    const at::Tensor& gradient, const at::Tensor& input, const at::Tensor& weight, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups, std::array<bool, 3> mask) {
  Call call("convolution_backward");
  const c10::SymInt channels = gradient.sym_size(1);
  const auto [x, w, b] = at::convolution_backward_symint(
      call.take(gradient, Role::read), call.take(input, Role::read), call.take(weight, Role::read),
      mask[2] ? at::OptionalSymIntArrayRef(channels) : std::nullopt, stride, padding, dilation, transposed,
      output_padding, groups, mask);
  return {call.give(x), call.give(w), call.give(b)};
}

/// The order in which a row is added up depends on how many there are, as it does on CUDA.
at::Tensor sum_here(const at::Tensor& self, at::OptionalIntArrayRef dims, bool keep,
                    std::optional<at::ScalarType> dtype) {
  Call call("sum");
  at::Tensor alias = call.take(self, Role::read);
  if (alias.dim() == 2 && alias.size(0) < 16 && dims && dims->size() == 1 && dims->front() == 1) alias = alias.flip(1);
  return call.give(at::sum(alias, dims, keep, dtype));
}

}  // namespace

void register_kernels() {
  static torch::Library all(torch::Library::IMPL, "_", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  all.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
  static torch::Library aten(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  aten.impl("empty.memory_format", &empty_here);
  aten.impl("empty_strided", &empty_strided_as_asked);
  aten.impl("_copy_from", &copy_from);
  aten.impl("_local_scalar_dense", &local_scalar_dense);
  aten.impl("resize_", &resize_here);
  aten.impl("view", &at::native::view);
  aten.impl("as_strided", &at::native::as_strided_tensorimpl);
  aten.impl("_reshape_alias", &at::native::_reshape_alias);
  aten.impl("unfold", &at::native::unfold);
  aten.impl("set_.source_Storage_storage_offset", &at::native::set_storage_cpu_);
  aten.impl("set_.source_Tensor", &at::native::set_tensor_);
  aten.impl("sum.dim_IntList", &sum_here);
  aten.impl("convolution_overrideable", &convolution_here);
  aten.impl("convolution_backward_overrideable", &convolution_backward_here);
}

}  // namespace lockstep::test::simulated
