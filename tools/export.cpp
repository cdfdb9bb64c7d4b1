// SPDX-License-Identifier: Apache-2.0
//
// `lockstep export`: a checkpoint as others take it.
#include <CLI/CLI.hpp>
#include <iostream>

#include "runtime/base/size.hpp"
#include "runtime/checkpoint/merge.hpp"
#include "runtime/session/recorded_model.hpp"
#include "runtime/training/onnx_export.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

struct ExportFlags {
  std::string folder, output, base;
  std::vector<std::string> plugins;
  bool merges = false, onnx = false, averaged = false, copies = false;
};

int merge(const ExportFlags& flags) {
  const MergedModel merged = merge_adapter(flags.folder, flags.output, flags.base, flags.averaged);
  std::cout << flags.output << ": " << merged.tensors << " tensors, " << size_text(merged.bytes) << "; "
            << merged.adapted << " of them those of " << merged.base << " with the adapter\n";
  return 0;
}

int to_onnx(const ExportFlags& flags) {
  const OnnxModel model =
      export_onnx({.checkpoint = flags.folder,
                   .output = flags.output,
                   .base = flags.base,
                   .averaged = flags.averaged,
                   .copies = flags.copies,
                   .model = [&](const ModelRecord& record) { return recorded_model(record, flags.plugins); }});
  std::cout << model.path << ": " << size_text(model.bytes) << "\n";
  for (const std::string& input : model.inputs) std::cout << "  reads   " << input << "\n";
  for (const std::string& output : model.outputs) std::cout << "  gives   " << output << "\n";
  for (const std::string& file : model.linked) std::cout << "  weights " << file << ", a hard link\n";
  for (const std::string& file : model.copied) std::cout << "  weights " << file << ", a copy\n";
  if (model.own_bytes > 0)
    std::cout << "  weights model.onnx.data, " << size_text(model.own_bytes) << " in the order that ONNX has them\n";
  return 0;
}

}  // namespace

void add_export(CLI::App& app, Command& command) {
  CLI::App* verb = app.add_subcommand("export", "A checkpoint as other programs take it");
  auto flags = std::make_shared<ExportFlags>();
  verb->add_option("checkpoint", flags->folder, "The folder of a checkpoint; to merge, also one that PEFT has saved")
      ->required()
      ->type_name("DIR");
  verb->add_flag("--onnx", flags->onnx, "As ONNX: model.onnx, whose weights are the checkpoint's own files");
  verb->add_flag("--merge", flags->merges, "An adapter (model.lora) and its base as one model")->excludes("--onnx");
  verb->add_option("--out", flags->output, "The folder to write, which is new")->required()->type_name("DIR");
  verb->add_option("--base", flags->base, "Of an adapter: where its base is, if not where it says")->type_name("DIR");
  verb->add_flag("--ema", flags->averaged, "With the averages of its weights (train.ema) in their place");
  verb->add_flag("--copy", flags->copies, "With --onnx: copies of the weights instead of hard links")->needs("--onnx");
  verb->add_option("--plugin", flags->plugins, "With --onnx: where the plug-ins are now that training named")
      ->type_name("FILE")
      ->needs("--onnx");
  verb->footer(
      "Examples:\n  lockstep export runs/gpt/checkpoints/step-00000100 --onnx --out gpt-onnx\n"
      "  lockstep export runs/lora/checkpoints/step-00000100 --merge --out merged\n"
      "One file of a checkpoint's weights: lockstep checkpoint export");
  verb->callback([flags, &command] {
    if (!flags->onnx && !flags->merges) throw CLI::RequiredError("--onnx or --merge");
    command = [flags] { return flags->merges ? merge(*flags) : to_onnx(*flags); };
  });
}

}  // namespace lockstep
