// SPDX-License-Identifier: Apache-2.0
// The torch headers that our files use, precompiled once. No more than that: GCC instantiates again, in every file,
// what inline functions of this header use. It takes 2.8 s, with torch/library.h 3.1 s, with custom_function.h too 6 s.
#pragma once
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>
