// SPDX-License-Identifier: Apache-2.0
//
// Tokens to be guessed (Devlin et al., "BERT", 2019, section 3.1), of any data whose x is int64 tokens [rows, length]:
// `data.masking`. Private to this folder.
#pragma once

#include "runtime/data/dataset.hpp"

namespace lockstep {

struct Masking {
  std::int64_t token = 0;                ///< what stands for a token that is to be guessed
  std::int64_t vocab = 0;                ///< tokens that take the place of others are drawn below it
  double probability = 0.15;             ///< that a token is to be guessed
  double random = 0.1, kept = 0.1;       ///< of those: another token, or itself, in place of `token`
  std::vector<std::int64_t> never = {};  ///< tokens that are not to be guessed: padding, separators
};

/// `data` with some of its tokens masked; targets int64 [rows, length]: the token where it is to be guessed, else -100,
/// which losses leave out. Which ones is keyed by the number of the draw in training, else by the number of the sample.
/// Throws DataError when x is no tokens.
std::shared_ptr<const Dataset> masked_tokens(std::shared_ptr<const Dataset> data, const Masking& masking,
                                             std::uint64_t seed);

}  // namespace lockstep
