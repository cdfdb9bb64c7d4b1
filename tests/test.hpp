// SPDX-License-Identifier: Apache-2.0
// Catch2 under one name: 2.13 on Debian 12, version 3 elsewhere.
#pragma once
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
