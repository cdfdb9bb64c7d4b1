// SPDX-License-Identifier: Apache-2.0
// What the tests that see torch have precompiled.
#pragma once
#include "cmake/torch_pch.hpp"
#include "tests/test.hpp"
