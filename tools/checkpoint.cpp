// SPDX-License-Identifier: Apache-2.0
//
// `lockstep checkpoint inspect | verify | export | fingerprint`: what a checkpoint holds, without the model. Nothing
// here builds a layer or needs the config.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iomanip>
#include <iostream>

#include "runtime/base/output_file.hpp"
#include "runtime/base/size.hpp"
#include "runtime/checkpoint/store.hpp"
#include "runtime/layer/tensor_hash.hpp"
#include "runtime/session/fingerprint.hpp"
#include "runtime/training/data_record.hpp"
#include "runtime/training/trainer_state.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

namespace fs = std::filesystem;

std::int64_t bytes_of(const Manifest& manifest) {
  std::int64_t bytes = 0;
  for (const auto& [name, shard] : manifest.shards) bytes += shard.bytes;
  return bytes;
}

/// A run folder: its checkpoints, one a line.
int list_run(const std::string& run) {
  for (const CheckpointPlace& place : list_checkpoints(checkpoints_of(run)))
    std::cout << place.path << "  step " << place.step << "  " << size_text(bytes_of(read_manifest(place.path)))
              << "\n";
  return 0;
}

void print_tensors(CheckpointStore& store, TensorKind kind, const std::string& title) {
  std::cout << title << "\n";
  for (const std::string& name : store.names(kind))
    std::cout << "  " << std::left << std::setw(44) << name << " " << to_string(store.entry(kind, name)) << "\n";
}

void print_data(const DataRecord& record) {
  std::cout << "data\n";
  for (const auto& [set, files] : {std::pair("train", record.train), {"eval", record.eval}})
    for (const DataFile& file : files)
      std::cout << "  " << set << ": "
                << (file.path.empty() ? concat(file.size, " samples") : concat(file.path, ", ", file.size, " bytes"))
                << ", hash " << hex(file.hash) << "\n";
  for (const std::string& line : learnt_lines(record)) std::cout << "  " << line << "\n";
}

int inspect(const std::string& path) {
  if (fs::is_directory(checkpoints_of(path))) return list_run(path);
  CheckpointStore store(path);
  const TrainerState state = state_of(store);
  std::cout << "step " << state.step << ", " << state.position << " samples consumed (" << state.samples
            << " per epoch), last loss " << state.loss << "\n";
  if (state.best)
    std::cout << "best evaluation so far: step " << state.best->step << ", " << state.best->watched << " "
              << state.best->value << "\n";
  std::cout << "files\n";
  for (const auto& [name, shard] : store.manifest().shards)
    std::cout << "  " << std::left << std::setw(44) << name << " " << size_text(shard.bytes) << ", "
              << shard.tensors.size() << " tensors\n";
  print_tensors(store, TensorKind::weight, "weights");
  if (const std::size_t base = store.manifest().bases.size())
    std::cout << "  of a base that is not here: " << base << " tensors\n";
  print_tensors(store, TensorKind::optimizer, "optimizer");
  std::cout << "numerics\n";
  for (const auto& [key, value] : state.numerics) std::cout << "  " << key << ": " << value << "\n";
  std::cout << "environment\n";
  for (const auto& [key, value] : state.environment.entries) std::cout << "  " << key << ": " << value << "\n";
  if (state.data) print_data(*state.data);
  if (!state.changes.empty()) std::cout << "changed knowingly\n";
  for (const std::string& change : state.changes) std::cout << "  " << change << "\n";
  return 0;
}

int verify(const std::string& path) {
  // A folder of something else is not a damaged one.
  if (!fs::exists(path + "/" + kManifestFile)) read_manifest(path);
  const std::vector<std::string> findings = find_damage(path);
  for (const std::string& finding : findings) std::cout << "DAMAGED: " << finding << "\n";
  if (!findings.empty()) return static_cast<int>(ExitCode::fault);
  const Manifest manifest = read_manifest(path);
  std::size_t tensors = 0;
  for (const auto& [name, shard] : manifest.shards) tensors += shard.tensors.size();
  std::cout << "good: " << path << ": step " << manifest.step << ", " << tensors << " tensors, "
            << size_text(bytes_of(manifest)) << "\n";
  return 0;
}

int export_weights(const std::string& path, const std::string& output, bool averaged) {
  check_writable("--output", output);
  const OutputPlace place = place_of_output(output);
  if (place.descriptor >= 0)
    throw UserError(
        concat("--output: ", output, " is an open descriptor; name a file or a FIFO: what is exported is no text"));
  if (!place.in_place && fs::exists(place.path))
    throw UserError(concat("--output: ", output, " is there already; remove it or choose another"));
  const std::vector<std::string> findings = find_damage(path);
  if (!findings.empty()) throw UserError(concat(findings.front(), other_good_checkpoint(path)));
  const MappedWeights weights(CheckpointStore(path), averaged);
  const fs::path file = fs::absolute(place.in_place ? place.path : place.path + ".part");
  WrittenFile written;
  try {
    written = write_safetensors(file.parent_path(), file.filename(), weights.tensors());
  } catch (const Error&) {
    if (!place.in_place) fs::remove(file);
    throw;
  }
  if (!place.in_place) fs::rename(file, place.path);
  std::cout << output << ": " << written.tensors.size() << " tensors, " << size_text(written.bytes) << "\n";
  return 0;
}

int fingerprint(const std::string& path) {
  const CheckpointStore store(path);
  std::map<std::string, std::uint64_t> hashes;
  const MappedWeights weights(store);
  for (const NamedTensor& each : weights.tensors())
    if (!store.is_in_parts(TensorKind::weight, each.name)) hashes[each.name] = hash_of(each.tensor);
  for (const auto& [file, shard] : store.manifest().shards)
    for (const auto& [name, hash] : shard.tensors)  // what is in parts has no hash as a whole
      if (file.starts_with("model-") && !store.has(TensorKind::weight, name)) hashes[name] = hash;
  for (const auto& [name, text] : store.manifest().bases) hashes[name] = from_hex(text.substr(text.rfind(' ') + 1));
  std::cout << fingerprint_json(state_of(store), hashes);
  return 0;
}

}  // namespace

void add_checkpoint(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("checkpoint", "Look at a checkpoint, verify it, or export its weights");
  verb->require_subcommand(1);
  verb->footer(
      "Examples:\n"
      "  lockstep checkpoint inspect runs/quickstart\n"
      "  lockstep checkpoint verify runs/quickstart/checkpoints/step-00000100");
  const auto add = [&](const char* name, const char* summary, const char* example,
                       const std::function<int(const std::string&)>& work) {
    CLI::App* below = verb->add_subcommand(name, summary);
    auto path = std::make_shared<std::string>();
    below->add_option("checkpoint", *path, "The folder of a checkpoint: RUN_FOLDER/checkpoints/step-...")->required();
    below->footer(
        concat("Example:\n  lockstep checkpoint ", name, " runs/quickstart/checkpoints/step-00000100", example));
    below->callback([path, work, &command] { command = [path, work] { return work(*path); }; });
    return below;
  };
  add("inspect", "Step, files, tensors and numerics; of a run folder: its checkpoints", "", inspect);
  add("verify", "Read all of it and compare sizes and hashes; exit code 1 when it is damaged", "", verify);
  auto output = std::make_shared<std::string>();
  auto averaged = std::make_shared<bool>(false);
  CLI::App* exported =
      add("export", "Write all weights to one safetensors file", " -o weights.safetensors",
          [output, averaged](const std::string& path) { return export_weights(path, *output, *averaged); });
  exported->add_option("-o,--output", *output, "The file to write")->required()->type_name("FILE");
  exported->add_flag("--ema", *averaged, "The averages of the weights (train.ema) in their place");
  add("fingerprint", "Print the fingerprint that a run stopped at this step would have", "", fingerprint);
}

}  // namespace lockstep
