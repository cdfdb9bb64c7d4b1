// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace lockstep {

/// First of all in main(). UCX, which comes with MPI, takes HUP for its own debugging while it is loaded, from nohup
/// too: here it is again what it was when we were started.
void take_hangup_back();

}  // namespace lockstep
