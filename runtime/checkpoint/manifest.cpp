// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/manifest.hpp"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <iomanip>
#include <nlohmann/json.hpp>

#include "runtime/base/text.hpp"
#include "runtime/checkpoint/adapter.hpp"
#include "runtime/layer/tensor_hash.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "lockstep checkpoint";
constexpr int kVersion = 1;
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr const char* kStep = "step-";
constexpr const char* kSuperseded = "superseded-";

Json to_json(const WrittenFile& file) {
  Json tensors = Json::object();
  for (const auto& [name, hash] : file.tensors) tensors[name] = hex(hash);
  return {{"bytes", file.bytes}, {"header", hex(file.header_hash)}, {"tensors", tensors}};
}

WrittenFile written_file(const std::string& name, const Json& json) {
  WrittenFile file;
  file.name = name;
  file.bytes = json.at("bytes").get<std::int64_t>();
  file.header_hash = from_hex(json.at("header"));
  for (const auto& [tensor, hash] : json.at("tensors").items()) file.tensors[tensor] = from_hex(hash);
  return file;
}

/// As Hugging Face's: `total_size` is the sum of the tensors' bytes, without the files' headers.
std::string index_text(const std::string& folder, const Manifest& manifest) {
  Json map = Json::object();
  std::int64_t total = 0;
  std::map<std::string, std::string> file_of;
  for (const auto& [name, shard] : manifest.shards) {
    if (!name.starts_with("model-")) continue;
    for (const auto& [tensor, hash] : shard.tensors) file_of[tensor] = name;
    const SafetensorsFile file(folder + "/" + name);
    for (const TensorEntry& entry : file.entries()) total += entry.end - entry.begin;
  }
  for (const auto& [tensor, file] : file_of) map[tensor] = file;
  return Json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2) + "\n";
}

std::string manifest_text(const Manifest& manifest) {
  Json files = Json::object();
  for (const auto& [name, shard] : manifest.shards) files[name] = to_json(shard);
  for (const auto& [name, text] : manifest.texts) files[name] = {{"bytes", text.bytes}, {"hash", hex(text.hash)}};
  Json json = {{"format", kFormat}, {"version", kVersion}, {"step", manifest.step}, {"files", files}};
  if (!manifest.bases.empty()) json["base"] = manifest.bases;
  return json.dump(2) + "\n";
}

[[noreturn]] void cannot(const std::string& what, const std::string& path, const std::error_code& failure) {
  throw Error(concat("checkpoint: cannot ", what, " ", path, ": ", failure.message()));
}

void rename(const std::string& from, const std::string& to) {
  std::error_code failure;
  fs::rename(from, to, failure);
  if (failure) cannot("rename", from + " to " + to, failure);
}

void remove_all(const std::string& path) {
  std::error_code failure;
  fs::remove_all(path, failure);
  if (failure) cannot("remove", path, failure);
}

/// What a folder has whose name begins so; nothing when there is no folder.
std::vector<std::string> entries_of(const std::string& folder, const std::string& beginning) {
  std::vector<std::string> paths;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(folder, failure))
    if (entry.path().filename().string().starts_with(beginning)) paths.push_back(entry.path().string());
  return paths;
}

void check_tensors(const SafetensorsFile& file, const WrittenFile& expected, std::vector<std::string>& findings) {
  for (const auto& [name, hash] : expected.tensors)
    if (!file.find(name)) findings.push_back(CheckpointError(file.path(), name, -1, "is missing").what());
  const MappedFile mapped(file.file());
  for (const TensorEntry& entry : file.entries()) {
    const auto found = expected.tensors.find(entry.name);
    if (found == expected.tensors.end()) {
      findings.push_back(CheckpointError(file.path(), entry.name, entry.begin, "is not in the manifest").what());
      continue;
    }
    const auto begin = static_cast<std::size_t>(entry.begin), end = static_cast<std::size_t>(entry.end);
    void* data = const_cast<char*>(mapped.data() + begin);
    const std::string damage =
        damage_of(at::from_blob(data, entry.sizes, at::TensorOptions(entry.dtype)), found->second);
    mapped.forget(begin, end);  // no more memory than the largest tensor
    if (!damage.empty()) findings.push_back(CheckpointError(file.path(), entry.name, entry.begin, damage).what());
  }
}

void check_shard(const std::string& path, const WrittenFile& expected, bool whole, std::vector<std::string>& findings) {
  // Before the header: of a file that was cut short it can only be said that it was.
  if (const std::int64_t size = File::to_read(path).size(); size != expected.bytes)
    findings.push_back(CheckpointError(path, concat("has ", size, " bytes, expected ", expected.bytes)).what());
  const SafetensorsFile file(path);
  if (hash_of(file.header()) != expected.header_hash)
    findings.push_back(CheckpointError(path, "its header was altered").what());
  if (whole) check_tensors(file, expected, findings);
}

void check_text(const std::string& path, const Manifest::Text& expected, std::vector<std::string>& findings) {
  const std::string text = read_text(path);
  if (static_cast<std::int64_t>(text.size()) != expected.bytes)
    findings.push_back(CheckpointError(path, concat("has ", text.size(), " bytes, expected ", expected.bytes)).what());
  else if (hash_of(text) != expected.hash)
    findings.push_back(CheckpointError(path, "was altered").what());
}

}  // namespace

std::string hex(std::uint64_t value) {
  std::ostringstream out;
  out << std::hex << std::setw(16) << std::setfill('0') << value;
  return out.str();
}

std::uint64_t from_hex(const std::string& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size())
    throw std::runtime_error("a hash that is none: " + text);
  return value;
}

std::string ShardReport::to_text() const {
  Json list = Json::object(), others = Json::object();
  for (const WrittenFile& file : files) list[file.name] = to_json(file);
  for (const auto& [name, hash] : copies) others[name] = hex(hash);
  return Json{{"step", step},     {"row", row},     {"files", list},
              {"copies", others}, {"bases", bases}, {"not_finite", not_finite}}
      .dump();
}

ShardReport ShardReport::from_text(const std::string& text) {
  const Json json = Json::parse(text);
  ShardReport report;
  report.step = json.at("step").get<std::int64_t>();
  report.row = json.at("row").get<int>();
  report.not_finite = json.at("not_finite").get<std::string>();
  report.bases = json.at("bases").get<std::map<std::string, std::string>>();
  for (const auto& [name, file] : json.at("files").items()) report.files.push_back(written_file(name, file));
  for (const auto& [name, hash] : json.at("copies").items()) report.copies[name] = from_hex(hash);
  return report;
}

Manifest read_manifest(const std::string& checkpoint) {
  const std::string path = checkpoint + "/" + kManifestFile;
  std::error_code failure;
  if (!fs::is_directory(checkpoint, failure))
    throw CheckpointError(checkpoint,
                          concat("there is no such checkpoint folder", failure ? ": " + failure.message() : ""));
  if (!fs::exists(path, failure))
    throw CheckpointError(checkpoint, concat("is no checkpoint: it has no ", kManifestFile,
                                             "; name a folder such as RUN_FOLDER/checkpoints/step-00000100"));
  const std::string text = read_text(path);
  try {
    const Json json = Json::parse(text);
    if (json.at("format") != kFormat) throw std::runtime_error("its format is another one");
    if (json.at("version") != kVersion)
      throw std::runtime_error(
          concat("its version is ", json.at("version").dump(), ", this lockstep reads ", kVersion));
    Manifest manifest;
    manifest.step = json.at("step").get<std::int64_t>();
    for (const auto& [name, file] : json.at("files").items()) {
      if (name.find('/') != std::string::npos) throw std::runtime_error("it names a file outside: " + name);
      if (name.ends_with(".safetensors"))
        manifest.shards[name] = written_file(name, file);
      else
        manifest.texts[name] = {file.at("bytes").get<std::int64_t>(), from_hex(file.at("hash"))};
    }
    if (json.contains("base")) manifest.bases = json["base"].get<std::map<std::string, std::string>>();
    if (!manifest.texts.count(kTrainerFile)) throw std::runtime_error(concat("it does not have ", kTrainerFile));
    return manifest;
  } catch (const std::exception& error) {
    throw CheckpointError(path, concat("is damaged: ", reason_of(error)));
  }
}

std::vector<std::string> find_damage(const std::string& checkpoint, int part, int parts) {
  std::vector<std::string> findings;
  const auto guarded = [&](const auto& check) {
    try {
      check();
    } catch (const CheckpointError& error) {
      findings.emplace_back(error.what());
    }
  };
  guarded([&] {
    const Manifest manifest = read_manifest(checkpoint);
    for (const auto& [name, text] : manifest.texts)
      guarded([&, &file = name, &expected = text] { check_text(checkpoint + "/" + file, expected, findings); });
    int number = 0;
    for (const auto& [name, shard] : manifest.shards) {
      const bool whole = number++ % parts == part;
      guarded(
          [&, &file = name, &expected = shard] { check_shard(checkpoint + "/" + file, expected, whole, findings); });
    }
  });
  return findings;
}

std::string checkpoints_of(const std::string& run_folder) {
  return run_folder + "/checkpoints";
}

std::string checkpoint_path(const std::string& checkpoints, std::int64_t step) {
  std::ostringstream out;
  out << checkpoints << "/" << kStep << std::setw(8) << std::setfill('0') << step;
  return out.str();
}

std::vector<CheckpointPlace> list_checkpoints(const std::string& checkpoints) {
  std::vector<CheckpointPlace> found;
  std::error_code failure;
  for (const auto& entry : fs::directory_iterator(checkpoints, failure)) {
    const std::string name = entry.path().filename().string();
    std::int64_t step = -1;
    const char* end = name.data() + name.size();
    if (!name.starts_with(kStep)) continue;
    const auto parsed = std::from_chars(name.data() + std::string_view(kStep).size(), end, step);
    if (parsed.ec == std::errc() && parsed.ptr == end && entry.is_directory())
      found.push_back({entry.path().string(), step});
  }
  std::sort(found.begin(), found.end(),
            [](const CheckpointPlace& a, const CheckpointPlace& b) { return a.step < b.step; });
  return found;
}

CheckpointChoice latest_good_checkpoint(const std::string& run_folder) {
  CheckpointChoice choice;
  const std::vector<CheckpointPlace> all = list_checkpoints(checkpoints_of(run_folder));
  for (auto place = all.rbegin(); place != all.rend(); ++place) {
    const std::vector<std::string> damage = find_damage(place->path);
    if (damage.empty()) {
      choice.path = place->path;
      choice.step = place->step;
      break;
    }
    choice.skipped.push_back(damage.front());
  }
  return choice;
}

std::string other_good_checkpoint(const std::string& damaged) {
  const fs::path folder = fs::path(damaged).lexically_normal();
  const fs::path parent = (folder.has_filename() ? folder : folder.parent_path()).parent_path();
  const std::vector<CheckpointPlace> all = list_checkpoints(parent.empty() ? "." : parent.string());
  for (auto place = all.rbegin(); place != all.rend(); ++place)
    if (find_damage(place->path).empty()) return concat("; the newest good one beside it is ", place->path);
  if (const CheckpointChoice within = latest_good_checkpoint(damaged); !within.path.empty())
    return concat("; it is the folder of a run, whose newest good one is ", within.path);
  return "; there is no good one beside it";
}

void publish_checkpoint(const std::string& part, const std::string& final_path, Manifest manifest,
                        const std::map<std::string, std::string>& texts, const FileProgress& progress) {
  std::map<std::string, std::string> all = texts;
  if (!manifest.shards.contains(kAdapterFile)) all[kIndexFile] = index_text(part, manifest);
  for (const auto& [name, text] : all) {
    write_text(part + "/" + name, text, progress);
    manifest.texts[name] = {static_cast<std::int64_t>(text.size()), hash_of(text)};
  }
  write_text(part + "/" + kManifestFile, manifest_text(manifest), progress);
  sync_folder(part, progress);
  const std::string parent = fs::path(final_path).parent_path().string();
  const std::string old = final_path + ".part.old";
  if (fs::exists(final_path)) rename(final_path, old);
  rename(part, final_path);
  sync_folder(parent, progress);
  remove_all(old);
}

void prune_checkpoints(const std::string& checkpoints, int keep, std::int64_t spared_step,
                       const FileProgress& progress) {
  const std::vector<CheckpointPlace> all = list_checkpoints(checkpoints);
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < all.size(); ++i) {
    if (all[i].step == spared_step) continue;
    // Under another name first: nobody may find half of it.
    rename(all[i].path, all[i].path + ".part");
    remove_all(all[i].path + ".part");
    if (progress) progress();
  }
}

void clear_after(const std::string& checkpoints, std::int64_t step, const std::string& spared) {
  for (const std::string& path : entries_of(checkpoints, kStep))
    if (path.find(".part", checkpoints.size()) != std::string::npos) remove_all(path);
  std::vector<std::string> later;
  for (const CheckpointPlace& place : list_checkpoints(checkpoints))
    if (place.step > step) later.push_back(fs::path(place.path).filename().string());
  if (later.empty()) return;
  // One such future is kept, not all of them.
  std::error_code none;
  for (const std::string& path : entries_of(checkpoints, concat(kSuperseded, kStep)))
    if (spared.empty() || !fs::equivalent(path, spared, none)) remove_all(path);
  for (const std::string& name : later) rename(checkpoints + "/" + name, concat(checkpoints, "/", kSuperseded, name));
}

void point_to_best(const std::string& checkpoints, std::int64_t step) {
  const std::string link = checkpoints + "/best", temporary = link + ".part";
  std::error_code failure;
  fs::remove(temporary, failure);
  if (step < 0) {
    fs::remove(link, failure);
    return;
  }
  fs::create_directory_symlink(fs::path(checkpoint_path(checkpoints, step)).filename(), temporary, failure);
  if (failure) cannot("make", temporary, failure);
  rename(temporary, link);
}

}  // namespace lockstep
