// SPDX-License-Identifier: Apache-2.0
//
// `lockstep export`: a checkpoint as others take it.
#include <CLI/CLI.hpp>
#include <iostream>

#include "runtime/base/size.hpp"
#include "runtime/checkpoint/merge.hpp"
#include "tools/command.hpp"

namespace lockstep {
namespace {

int merge(const std::string& folder, const std::string& output, const std::string& base, bool averaged) {
  const MergedModel merged = merge_adapter(folder, output, base, averaged);
  std::cout << output << ": " << merged.tensors << " tensors, " << size_text(merged.bytes) << "; " << merged.adapted
            << " of them those of " << merged.base << " with the adapter\n";
  return 0;
}

}  // namespace

void add_export(CLI::App& app, Command& command) {
  struct Flags {
    std::string folder, output, base;
    bool merges = false, averaged = false;
  };
  CLI::App* verb = app.add_subcommand("export", "A checkpoint as other programs take it");
  auto flags = std::make_shared<Flags>();
  verb->add_option("checkpoint", flags->folder, "The folder of a checkpoint, or of an adapter that PEFT has saved")
      ->required()
      ->type_name("DIR");
  verb->add_flag("--merge", flags->merges, "An adapter (model.lora) and its base as one model")->required();
  verb->add_option("--out", flags->output, "The folder to write, which is new")->required()->type_name("DIR");
  verb->add_option("--base", flags->base, "Where the base is, if not where the adapter says")->type_name("DIR");
  verb->add_flag("--ema", flags->averaged, "With the averages of its weights (train.ema) in their place");
  verb->footer(
      "Example:\n  lockstep export runs/lora/checkpoints/step-00000100 --merge --out merged\n"
      "One file of a checkpoint's weights: lockstep checkpoint export");
  verb->callback([flags, &command] {
    command = [flags] { return merge(flags->folder, flags->output, flags->base, flags->averaged); };
  });
}

}  // namespace lockstep
