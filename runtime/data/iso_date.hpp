// SPDX-License-Identifier: Apache-2.0
//
// Dates as text. Private to this folder.
#pragma once

#include <optional>
#include <string_view>

namespace lockstep {

/// Days since 1970-01-01 of an ISO 8601 date, with or without a time ("2024-02-29", "2024-02-29T12:00:00.5+01:00");
/// without a zone it counts as UTC.
std::optional<double> iso_days(std::string_view text);

}  // namespace lockstep
