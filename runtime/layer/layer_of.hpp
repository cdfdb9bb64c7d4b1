// SPDX-License-Identifier: Apache-2.0
//
// A layer with options, each of which is named once: a struct of them, and a list of its fields.
//
//   struct DropoutConfig {
//     double p = 0;
//   };
//   void fields(FieldVisitor& visit, DropoutConfig& config) {  // runtime/config/field.hpp
//     visit("p", value(config.p, fraction_below_one()).required());
//   }
//   class Dropout : public LayerOf<DropoutConfig> {
//    public:
//     explicit Dropout(const DropoutConfig& config) : LayerOf("dropout", config) {}
//     ... describe() and forward(), which read config()
//   };
//
// From the list follow reading it from YAML with its errors (layer_kind.hpp), the same rules for whoever makes one in
// C++, options(), by which profiles tell layers apart, and `lockstep list layers`.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "runtime/layer/layer.hpp"

namespace lockstep {

class FieldVisitor;

/// The options as text. Throws ModelError with `type`, key and rule when one of them breaks its rule.
std::string checked_options(const std::string& type, const std::function<void(FieldVisitor&)>& keys);

/// `fields(FieldVisitor&, Of&)` stands beside Of.
template <typename Of>
class LayerOf : public Layer {
 public:
  using Config = Of;

  std::string type() const final { return type_; }
  std::string options() const final { return options_; }

 protected:
  LayerOf(std::string type, Of config)
      : type_(std::move(type)),
        options_(checked_options(type_, [&config](FieldVisitor& visit) { fields(visit, config); })),
        config_(std::move(config)) {}

  const Of& config() const { return config_; }

 private:
  std::string type_, options_;
  Of config_;
};

}  // namespace lockstep
