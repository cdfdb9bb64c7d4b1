// SPDX-License-Identifier: Apache-2.0
//
// A plug-in for the tests against Python: `data: {type: tensors, file: F}` are the tensors "x" and "targets" of a
// safetensors file, a sample per row.
#include <ATen/ATen.h>

#include "runtime/checkpoint/safetensors.hpp"
#include "runtime/session/plugins.hpp"

namespace {

using namespace lockstep;

class FileTensors : public Dataset {
 public:
  explicit FileTensors(const std::string& path) {
    const SafetensorsFile file(path);
    for (const char* name : {"x", "targets"}) {
      const TensorEntry* entry = file.find(name);
      if (!entry) throw DataError(concat(path, ": has no tensor '", name, "'"));
      file.read(*entry, tensors_.emplace_back(at::empty(entry->sizes, entry->dtype)));
      entries_.push_back({name, entry->dtype, entry->sizes, /*differentiable=*/false});
    }
  }
  std::vector<EntrySpec> entries(std::int64_t rows) const override {
    std::vector<EntrySpec> entries = entries_;
    for (EntrySpec& entry : entries) entry.sizes[0] = rows;
    return entries;
  }
  std::int64_t size() const override { return tensors_.front().size(0); }
  Tensors read(const std::vector<std::int64_t>& samples) const override {
    const at::Tensor rows = at::tensor(samples, at::kLong);
    return {tensors_[0].index_select(0, rows), tensors_[1].index_select(0, rows)};
  }

 private:
  Tensors tensors_;
  std::vector<EntrySpec> entries_;
};

void add_reader(Registry& registry) {
  registry.readers.add(
      {"tensors", "the tensors x and targets of a safetensors file", [](const Section& section, const DataContext&) {
         const auto path = section.get<std::string>("file");
         section.finish();
         return DataSplits{std::make_shared<FileTensors>(path), nullptr};
       }});
}

}  // namespace

LOCKSTEP_PLUGIN(add_reader)
