// SPDX-License-Identifier: Apache-2.0
//
// Things that a config names: ours, and those that plug-ins add, in the order in which they are listed.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/base/error.hpp"
#include "runtime/base/nearest.hpp"

namespace lockstep {

/// T has a `name` and a `summary`, a line each.
template <typename T>
class Table {
 public:
  /// `what`: one of them, for messages: "loss".
  Table(std::string what, std::vector<T> entries) : what_(std::move(what)), entries_(std::move(entries)) {}

  const std::vector<T>& entries() const { return entries_; }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const T& entry : entries_) names.push_back(entry.name);
    return names;
  }
  /// Null when there is none.
  const T* find(const std::string& name) const {
    for (const T& entry : entries_)
      if (entry.name == name) return &entry;
    return nullptr;
  }
  /// Throws UserError with missing() when there is none.
  const T& get(const std::string& name) const {
    if (const T* entry = find(name)) return *entry;
    throw UserError(missing(name));
  }
  /// "there is no loss 'mae'; there are: mse, ...; did you mean 'mse'?"
  std::string missing(const std::string& name) const {
    return concat("there is no ", what_, " '", name, "'; there are: ", join(names()), did_you_mean(name, names()));
  }
  /// Throws UserError when the name is taken.
  void add(T entry) {
    if (find(entry.name))
      throw UserError(concat("the ", what_, " '", entry.name, "' is there already; give the other one another name"));
    entries_.push_back(std::move(entry));
  }

 private:
  std::string what_;
  std::vector<T> entries_;
};

}  // namespace lockstep
