// SPDX-License-Identifier: Apache-2.0
#include "runtime/session/profile_table.hpp"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "runtime/base/text.hpp"
#include "runtime/session/planning.hpp"

namespace lockstep {
namespace {

/// Milliseconds, in eight columns up to days.
std::string ms(double us) {
  return fixed_text(us * 1e-3, us < 1e6 ? 3 : us < 1e8 ? 1 : 0);
}

/// Neighbouring layers that cost the same.
struct Run {
  int first = 0, last = 0;
  std::string signature;
};

std::vector<Run> runs_of(const Trainer& trainer) {
  std::vector<Run> runs;
  for (int layer = 0; layer < trainer.graph().layer_count(); ++layer) {
    const std::string signature = signature_of(trainer.graph(), layer, trainer.losses());
    if (runs.empty() || runs.back().signature != signature)
      runs.push_back({layer, layer, signature});
    else
      runs.back().last = layer;
  }
  return runs;
}

void print_row(std::ostream& out, const std::vector<std::string>& numbers, const std::string& layers) {
  constexpr int widths[] = {7, 10, 10, 10, 10, 9, 12, 12};
  for (std::size_t i = 0; i < numbers.size(); ++i) out << std::setw(widths[i]) << numbers[i];
  out << "  " << layers << "\n";
}

/// A line for each run of equal layers, in the order of the model.
void print_table(std::ostream& out, const Trainer& trainer, const Profile& profile, const std::string& kind,
                 double rows) {
  constexpr double mib = 1048576;
  const ModelGraph& graph = trainer.graph();
  double forward = 0, input_grad = 0, weight_grad = 0, update = 0, parameters = 0, held = 0;
  print_row(out, {"layers", "F ms", "I ms", "W ms", "update ms", "spread", "params MiB", "held MiB"}, "first .. last");
  for (const Run& run : runs_of(trainer)) {
    const LayerProfile layer = profile_of_layer(profile, graph.layers[run.first].name, run.signature, kind);
    const LayerSample sample = sample_at(layer, rows);
    const int count = run.last - run.first + 1;
    const double parameter_mib = 4 * static_cast<double>(graph.elements_of_layer(run.first)) / mib;
    forward += count * sample.forward_us;
    input_grad += count * sample.input_grad_us;
    weight_grad += count * sample.weight_grad_us;
    update += count * sample.update_us;
    parameters += count * parameter_mib;
    held += count * sample.activation_bytes / mib;
    std::string name = graph.layers[run.first].name;
    if (count > 1) name += " .. " + graph.layers[run.last].name;
    const double all_us = sample.forward_us + sample.input_grad_us + sample.weight_grad_us;
    if (layer.misfit > kMisfit + sample.spread && all_us > kTinyUs)
      name += concat("  misfit ", fixed_text(layer.misfit * 100, 0), " %: not linear in rows between the two sizes");
    print_row(out,
              {std::to_string(count), ms(sample.forward_us), ms(sample.input_grad_us), ms(sample.weight_grad_us),
               ms(sample.update_us), fixed_text(sample.spread * 100, 0) + " %", fixed_text(parameter_mib, 2),
               fixed_text(sample.activation_bytes / mib, 2)},
              name);
  }
  print_row(out,
            {std::to_string(graph.layer_count()), ms(forward), ms(input_grad), ms(weight_grad), ms(update), "",
             fixed_text(parameters, 2), fixed_text(held, 2)},
            "all layers, each by itself");
}

void print_links(std::ostream& out, const Profile& profile) {
  const auto print = [&](const char* name, const LinkCost& link) {
    const bool given =
        std::find(profile.given_links.begin(), profile.given_links.end(), name) != profile.given_links.end();
    out << "link " << name << ": " << fixed_text(link.latency_us, 1) << " us";
    if (std::isfinite(link.bytes_per_us)) out << ", " << fixed_text(link.bytes_per_us * 1e-3, 2) << " GB/s";
    if (link.busy_us_per_byte > 0)
      out << ", takes " << fixed_text(link.busy_us_per_byte * 1048576, 0) << " us of each end per MiB";
    out << (given ? "\n" : " (assumed, not measured)\n");
  };
  print("same_rank", profile.links.same_rank);
  print("same_host", profile.links.same_host);
  print("other_host", profile.links.other_host);
  for (const LinkClass& link : link_classes())
    if (link.copies && !profile.devices.empty()) print(link.key, profile.links.*link.member);
  std::vector<std::string> speeds;
  for (const ProfiledWorker& worker : profile.workers) speeds.push_back(fixed_text(worker.speed, 2));
  if (speeds.size() > 1) out << "speed by rank: " << join(speeds) << "\n";
}

}  // namespace

std::string profile_table(const Trainer& trainer, const Profile& profile, double rows) {
  std::ostringstream out;
  std::vector<std::string> kinds;
  for (const LayerProfile& layer : profile.layers)
    if (std::find(kinds.begin(), kinds.end(), layer.kind) == kinds.end()) kinds.push_back(layer.kind);
  for (const std::string& kind : kinds) {
    if (kind != kHostKind || kinds.size() > 1) out << "on " << kind << ":\n";
    print_table(out, trainer, profile, kind, rows);
  }
  print_links(out, profile);
  return out.str();
}

}  // namespace lockstep
