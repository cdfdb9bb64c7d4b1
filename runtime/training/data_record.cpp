// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/data_record.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/base/text.hpp"
#include "runtime/layer/random.hpp"
#include "runtime/layer/tensor_hash.hpp"
#include "runtime/training/trainer_state.hpp"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kSamples = 64;

Json json_of(const std::vector<DataFile>& files) {
  Json list = Json::array();
  for (const DataFile& file : files)
    if (file.path.empty())
      list.push_back({{"samples", file.size}, {"hash", hex(file.hash)}});
    else
      list.push_back({{"file", file.path}, {"bytes", file.size}, {"hash", hex(file.hash)}});
  return list;
}

std::vector<DataFile> files_of(const Json& list) {
  std::vector<DataFile> files;
  for (const Json& file : list) {
    const bool is_file = file.contains("file");
    files.push_back({is_file ? file.at("file").get<std::string>() : "",
                     file.at(is_file ? "bytes" : "samples").get<std::int64_t>(),
                     from_hex(file.at("hash").get<std::string>())});
  }
  return files;
}

std::vector<DataFile> sampled(const Dataset& data) {
  const std::int64_t size = data.size(), count = std::min(kSamples, size);
  DataFile file;
  file.size = count;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t sample = count == 1 ? 0 : i * (size - 1) / (count - 1);
    for (const at::Tensor& entry : read_samples(data, {sample}))
      file.hash = mix_seed(file.hash, hash_of(entry), static_cast<std::uint64_t>(sample), "data.sample");
  }
  return {file};
}

std::string text_of(const std::vector<DataFile>& files, std::size_t at) {
  if (at >= files.size()) return concat(files.size(), " files");
  const DataFile& file = files[at];
  if (file.path.empty()) return concat("samples (", file.size, " of them: hash ", hex(file.hash), ")");
  return concat(file.path, " (", file.size, " bytes, hash ", hex(file.hash), ")");
}

}  // namespace

std::string to_json(const DataRecord& record) {
  Json json = {{"train", json_of(record.train)}};
  if (!record.eval.empty()) json["eval"] = json_of(record.eval);
  if (!record.learnt.empty()) json.update(Json::parse(record.learnt));
  // JSON holds UTF-8 only; a path may hold other bytes. Numbers are written so that they read back as they were.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

DataRecord data_record(const std::string& text, const std::string& file) {
  try {
    Json json = Json::parse(text);
    DataRecord record;
    record.train = files_of(json.at("train"));
    if (json.contains("eval")) record.eval = files_of(json.at("eval"));
    json.erase("train");
    json.erase("eval");
    if (!json.empty()) record.learnt = json.dump();
    return record;
  } catch (const std::exception& error) {
    throw CheckpointError(file, concat("is damaged: ", reason_of(error)));
  }
}

namespace {

/// A value on one line: texts without quotes, lists with commas, of objects "key value".
std::string plain(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return concat(value.get<double>());
  if (!value.is_structured()) return value.dump();
  std::vector<std::string> parts;
  for (const auto& [key, part] : value.items())
    parts.push_back(value.is_object() ? concat(key, " ", plain(part)) : plain(part));
  return join(parts);
}

}  // namespace

std::vector<std::string> learnt_lines(const DataRecord& record) {
  std::vector<std::string> lines;
  if (record.learnt.empty()) return lines;
  const Json learnt = Json::parse(record.learnt);
  for (const auto& [key, value] : learnt.items()) {
    const bool by_column = value.is_array() && !value.empty() && value[0].is_object() && value[0].contains("column");
    if (by_column) {
      for (Json each : value) {
        const std::string column = plain(each.at("column"));
        each.erase("column");
        lines.push_back(one_line(concat(key, " of ", column, ": ", plain(each))));
      }
    } else if (value.is_object()) {
      for (const auto& [column, each] : value.items())
        lines.push_back(one_line(concat(key, " of ", column, ": ", plain(each))));
    } else {
      lines.push_back(one_line(concat(key, ": ", plain(value))));
    }
  }
  return lines;
}

std::optional<DataRecord> data_record_of(const CheckpointStore& store) {
  if (!store.manifest().texts.count(kDataFile)) return std::nullopt;
  return data_record(store.text(kDataFile), store.path() + "/" + kDataFile);
}

DataRecord record_of(const DataSplits& data) {
  if (data.record) return *data.record;
  DataRecord record;
  record.train = sampled(*data.train);
  for (int set = 0; set < evaluation_sets(data); ++set)
    for (DataFile& file : sampled(evaluation_set(data, set))) record.eval.push_back(std::move(file));
  return record;
}

std::optional<DataDifference> data_difference(const std::vector<DataFile>& now, const std::vector<DataFile>& before) {
  const auto same = [](const DataFile& a, const DataFile& b) {
    return a.path.empty() == b.path.empty() && a.size == b.size && a.hash == b.hash;
  };
  const auto [ours, theirs] = std::mismatch(now.begin(), now.end(), before.begin(), before.end(), same);
  if (ours == now.end() && theirs == before.end()) return std::nullopt;
  const auto at = static_cast<std::size_t>(ours - now.begin());
  return DataDifference{text_of(now, at), text_of(before, at)};
}

TrainedOn trained_on(const std::string& checkpoint) {
  const CheckpointStore store(checkpoint);
  const TrainerState state = state_of(store);
  TrainedOn trained{state.samples, state.data.value_or(DataRecord{})};
  for (const char* key : {"inputs", "outputs", "classes", "vocab"})
    if (const auto size = state.numeric(concat("model.", key))) trained.model_sizes.emplace_back(key, *size);
  return trained;
}

}  // namespace lockstep
