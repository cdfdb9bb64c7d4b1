// SPDX-License-Identifier: Apache-2.0
#include "runtime/host/host_list.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <numeric>
#include <sstream>

#include "runtime/base/error.hpp"
#include "runtime/base/text.hpp"

namespace lockstep {
namespace {

constexpr int kMostSlots = 65536;

/// 0: it is no number of slots.
int slots_from(const std::string& text) {
  int slots = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), slots);
  return problem == std::errc() && end == text.data() + text.size() && slots >= 1 && slots <= kMostSlots ? slots : 0;
}

/// "a" or "a:4". `where` begins the message.
HostSlots read_host(const std::string& text, const std::string& where) {
  const std::size_t colon = text.find(':');
  HostSlots host{text.substr(0, colon), 1};
  if (colon != std::string::npos) host.slots = slots_from(text.substr(colon + 1));
  const bool is_name =
      !host.name.empty() && host.name[0] != '-' && host.name.find_first_of(" \t=,/") == std::string::npos;
  if (!is_name || host.slots == 0)
    throw UserError(concat(where, ": got '", one_line(text, 100), "', expected HOST or HOST:RANKS, such as node1:4"));
  return host;
}

void add(HostList& hosts, const HostSlots& host, const std::string& where) {
  if (std::any_of(hosts.begin(), hosts.end(), [&](const HostSlots& other) { return other.name == host.name; }))
    throw UserError(
        concat(where, ": host ", host.name, " is there twice; name it once, with all its ranks: ", host.name, ":N"));
  hosts.push_back(host);
}

}  // namespace

HostList read_hosts(const std::string& text, const std::string& flag) {
  HostList hosts;
  std::istringstream stream(text);
  for (std::string host; std::getline(stream, host, ',');) add(hosts, read_host(host, flag), flag);
  if (hosts.empty() || text.back() == ',')
    throw UserError(concat(flag, ": got '", one_line(text, 100), "', expected hosts, such as node1:4,node2:4"));
  return hosts;
}

HostList read_hostfile(const std::string& path) {
  std::ifstream file(path);
  HostList hosts;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    const std::string where = concat("--hostfile: ", path, ":", ++number);
    std::istringstream words(line.substr(0, line.find('#')));
    std::string name, slots, more;
    if (!(words >> name)) continue;
    words >> slots >> more;
    if (!slots.empty() && (!more.empty() || !slots.starts_with("slots=") || name.find(':') != std::string::npos))
      throw UserError(concat(where, ": got '", one_line(line, 100),
                             "', expected HOST, HOST:RANKS or HOST slots=RANKS on a line, such as node1:4"));
    add(hosts, read_host(slots.empty() ? name : name + ":" + slots.substr(6), where), where);
  }
  if (number == 0 && !file.is_open()) throw UserError(concat("--hostfile: cannot read ", path));
  if (hosts.empty()) throw UserError(concat("--hostfile: ", path, " names no host; expected a line such as node1:4"));
  return hosts;
}

int slots_of(const HostList& hosts) {
  return std::accumulate(hosts.begin(), hosts.end(), 0,
                         [](int sum, const HostSlots& host) { return sum + host.slots; });
}

std::string text_of(const HostList& hosts) {
  std::string text;
  for (const HostSlots& host : hosts)
    if (host.slots > 0) text += concat(text.empty() ? "" : ",", host.name, ":", host.slots);
  return text;
}

std::string host_flag_of(const std::vector<std::string>& launcher) {
  static const std::vector<std::string> names = {"f", "host", "hosts",       "hostlist", "hostfile",
                                                 "H", "w",    "machinefile", "nodelist", "default-hostfile"};
  for (const std::string& word : launcher) {
    if (!word.starts_with('-')) continue;
    const std::size_t begin = std::min(word.find_first_not_of('-'), word.size());
    const std::string name = word.substr(begin, word.find('=') - begin);
    if (std::find(names.begin(), names.end(), name) != names.end()) return word;
  }
  return "";
}

}  // namespace lockstep
