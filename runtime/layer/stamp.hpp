// SPDX-License-Identifier: Apache-2.0
//
// The stamp of a plug-in: a library on our headers and LibTorch's must have been built with the same ones. It is
// compared before anything of the library is called.
#pragma once

#include <torch/version.h>

/// Grows whenever something that a plug-in was compiled with changes: the layer contract, Model, Section, the tables.
#define LOCKSTEP_CONTRACT 12

#define LOCKSTEP_TEXT_OF(x) #x
#define LOCKSTEP_TEXT(x) LOCKSTEP_TEXT_OF(x)
#define LOCKSTEP_STAMP                                                           \
  "lockstep contract " LOCKSTEP_TEXT(LOCKSTEP_CONTRACT) ", torch " TORCH_VERSION \
                                                        ", "                     \
                                                        "C++ ABI " LOCKSTEP_TEXT(__GXX_ABI_VERSION)

#define LOCKSTEP_EXPORT_STAMP                      \
  extern "C" const char* lockstep_plugin_stamp() { \
    return LOCKSTEP_STAMP;                         \
  }
