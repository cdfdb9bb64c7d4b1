// SPDX-License-Identifier: Apache-2.0
// The torch headers that our files use, precompiled once. Not torch/torch.h: it doubles the size and nothing here needs
// it.
#pragma once
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>
