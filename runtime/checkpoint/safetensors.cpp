// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/safetensors.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/base/check.hpp"
#include "runtime/base/text.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

using Json = nlohmann::json;

constexpr std::int64_t kLengthBytes = 8;
constexpr std::int64_t kMostHeaderBytes = 100'000'000;  // as the reference implementation
constexpr int kDeepest = 3;                             // names, fields, numbers

struct Dtype {
  const char* name;
  at::ScalarType type;
};
constexpr std::array<Dtype, 12> kDtypes = {{{"F64", at::kDouble},
                                            {"F32", at::kFloat},
                                            {"F16", at::kHalf},
                                            {"BF16", at::kBFloat16},
                                            {"I64", at::kLong},
                                            {"U32", at::ScalarType::UInt32},
                                            {"U16", at::ScalarType::UInt16},
                                            {"I32", at::kInt},
                                            {"I16", at::kShort},
                                            {"I8", at::kChar},
                                            {"U8", at::kByte},
                                            {"BOOL", at::kBool}}};

std::string name_of(at::ScalarType type) {
  for (const Dtype& dtype : kDtypes)
    if (dtype.type == type) return dtype.name;
  throw UserError(concat("tensors of type ", c10::toString(type),
                         " cannot be saved: safetensors have no such type; a "
                         "layer's buffers have to be of another one"));
}

std::string shape_text(const std::string& dtype, at::IntArrayRef sizes) {
  return concat(dtype, " [", join(sizes), "]");
}

/// JSON whose objects have every key once. Throws what nlohmann throws, or CheckpointError.
Json parse_json(const std::string& path, const std::string& text) {
  std::vector<std::set<std::string>> keys;
  const auto callback = [&](int depth, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start) {
      if (depth >= kDeepest) throw CheckpointError(path, "its header is nested too deeply");
      if (event == Json::parse_event_t::object_start) keys.emplace_back();
    }
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      throw CheckpointError(path, value.get<std::string>(), -1, "is in the header twice");
    return true;
  };
  return Json::parse(text, callback);
}

/// What the header says of one tensor.
class EntryParser {
 public:
  EntryParser(const std::string& path, const std::string& name, const Json& fields)
      : path_(path), name_(name), fields_(fields) {
    if (!fields.is_object()) throw wrong("has no description");
  }

  /// `data`: where the tensors begin in the file; `data_bytes` are there.
  TensorEntry entry(std::int64_t data, std::int64_t data_bytes) const {
    TensorEntry entry{name_, dtype(), numbers("shape")};
    const std::vector<std::int64_t> offsets = numbers("data_offsets");
    if (offsets.size() != 2 || offsets[0] > offsets[1])
      throw wrong(concat("data_offsets: got [", join(offsets), "], expected [begin, end]"));
    entry.begin = data + offsets[0];
    entry.end = data + offsets[1];
    if (offsets[1] > data_bytes)
      throw wrong(concat("ends at byte ", offsets[1], " of the data, which has ", data_bytes,
                         "; the file was cut short, or its header altered"),
                  entry.begin);
    auto bytes = static_cast<std::int64_t>(c10::elementSize(entry.dtype));
    bool overflow = false;
    for (const std::int64_t size : entry.sizes) overflow |= __builtin_mul_overflow(bytes, size, &bytes);
    if (overflow || bytes != entry.end - entry.begin)
      throw wrong(concat("has ", entry.end - entry.begin, " bytes, but ", to_string(entry), " needs ",
                         overflow ? "far more" : concat(bytes)),
                  entry.begin);
    return entry;
  }

 private:
  CheckpointError wrong(const std::string& what, std::int64_t offset = -1) const {
    return CheckpointError(path_, name_, offset, what);
  }

  at::ScalarType dtype() const {
    const auto found = fields_.find("dtype");
    if (found == fields_.end() || !found->is_string()) throw wrong("has no dtype");
    const auto known = std::find_if(kDtypes.begin(), kDtypes.end(),
                                    [&](const Dtype& each) { return found->get<std::string>() == each.name; });
    if (known == kDtypes.end())
      throw wrong(concat("has dtype ", found->get<std::string>().substr(0, 40), ", which Lockstep does not read"));
    return known->type;
  }

  std::vector<std::int64_t> numbers(const char* field) const {
    const auto found = fields_.find(field);
    if (found == fields_.end() || !found->is_array()) throw wrong(concat("has no list '", field, "'"));
    std::vector<std::int64_t> list;
    for (const Json& number : *found) {
      if (!number.is_number_unsigned() || number.get<std::uint64_t>() > std::uint64_t{INT64_MAX})
        throw wrong(concat(field, ": got ", number.dump().substr(0, 40), ", expected an integer >= 0"));
      list.push_back(number.get<std::int64_t>());
    }
    return list;
  }

  const std::string& path_;
  const std::string& name_;
  const Json& fields_;
};

}  // namespace

std::string to_string(const TensorEntry& entry) {
  return shape_text(name_of(entry.dtype), entry.sizes);
}

SafetensorsFile::SafetensorsFile(const std::string& path, const FileProgress& progress)
    : file_(File::to_read(path, progress)), size_(file_.size()) {
  if (size_ < kLengthBytes) throw CheckpointError(path, concat("is no safetensors file: it has ", size_, " bytes"));
  std::uint64_t length = 0;
  file_.read(0, &length, sizeof length);
  if (length > static_cast<std::uint64_t>(std::min(size_ - kLengthBytes, kMostHeaderBytes)))
    throw CheckpointError(path, concat("its header is said to have ", length, " bytes, the file has ", size_,
                                       "; it was cut short, or is no safetensors file"));
  header_.resize(length);
  file_.read(kLengthBytes, header_.data(), header_.size());
  parse();
}

void SafetensorsFile::parse() {
  Json json;
  try {
    json = parse_json(path(), header_);
  } catch (const Json::exception& error) {
    throw CheckpointError(path(), concat("its header is no JSON: ", reason_of(error)));
  }
  if (!json.is_object()) throw CheckpointError(path(), "its header is no JSON object");
  const std::int64_t data = kLengthBytes + static_cast<std::int64_t>(header_.size());
  for (const auto& [name, fields] : json.items())
    if (name != "__metadata__") entries_.push_back(EntryParser(path(), name, fields).entry(data, size_ - data));
  std::stable_sort(entries_.begin(), entries_.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::int64_t end = data;
  for (const TensorEntry& entry : entries_) {
    if (entry.begin != end)
      throw CheckpointError(path(), entry.name, entry.begin,
                            entry.begin < end ? "overlaps the tensor before it" : "leaves a hole before it");
    end = entry.end;
    index_[entry.name] = static_cast<std::size_t>(&entry - entries_.data());
  }
  if (end != size_)
    throw CheckpointError(path(), concat("has ", size_ - end, " bytes behind its last tensor; it was altered"));
}

const TensorEntry* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

void SafetensorsFile::read(const TensorEntry& entry, const at::Tensor& to) const {
  if (to.scalar_type() != entry.dtype || to.sizes() != at::IntArrayRef(entry.sizes))
    throw CheckpointError(
        path(), entry.name, entry.begin,
        concat("is ", to_string(entry), ", expected ", shape_text(name_of(to.scalar_type()), to.sizes()),
               "; it belongs to another model or config"));
  const bool direct = to.device().is_cpu() && to.is_contiguous();
  const at::Tensor host = direct ? to : at::empty(entry.sizes, entry.dtype);
  file_.read(entry.begin, host.mutable_data_ptr(), host.nbytes());
  if (!direct) to.copy_(host);
}

std::string damage_of(const at::Tensor& tensor, std::uint64_t expected) {
  const TensorScan scan = scan_of(tensor);
  if (scan.hash != expected) return "has other bytes than the manifest says: it was altered, or the disk is bad";
  if (scan.finite) return "";
  // An infinity may be a buffer's, such as a mask's.
  const std::string element = not_finite_element(tensor, /*infinities=*/true);
  return element.empty() ? "" : "its element " + element;
}

WrittenFile write_safetensors(const std::string& folder, const std::string& name,
                              const std::vector<NamedTensor>& tensors, const FileProgress& progress) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return a->tensor.element_size() > b->tensor.element_size();
  });
  nlohmann::ordered_json header;
  header["__metadata__"]["format"] = "pt";  // transformers reads no file without it
  std::int64_t offset = 0;
  for (const NamedTensor* each : order) {
    const auto bytes = static_cast<std::int64_t>(each->tensor.nbytes());
    header[each->name] = {{"dtype", name_of(each->tensor.scalar_type())},
                          {"shape", each->tensor.sizes().vec()},
                          {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data starts aligned

  WrittenFile written;
  written.name = name;
  written.bytes = kLengthBytes + static_cast<std::int64_t>(text.size()) + offset;
  written.header_hash = hash_of(text);
  File file = File::to_write(folder + "/" + name, progress);
  const auto length = static_cast<std::uint64_t>(text.size());
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  for (const NamedTensor* each : order) {
    const at::Tensor host = each->tensor.detach().cpu().contiguous();
    const TensorScan scan = scan_of(host);
    written.tensors[each->name] = scan.hash;
    if (!scan.finite && written.not_finite.empty())
      if (const std::string element = not_finite_element(host, each->may_be_infinite); !element.empty())
        written.not_finite = each->name + element;
    file.write(host.const_data_ptr(), host.nbytes());
  }
  file.finish();
  return written;
}

}  // namespace lockstep
