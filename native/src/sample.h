// From one row of logits to one token id.
#pragma once
#include <cstdint>

#include "kernels.h"

namespace outrider {

struct PickSettings {
  float temperature;  // 0: arg-max
  int topK;           // 0: all
  float topP, minP;
  uint64_t seed;
};

// A point of [0, 1), known to `resolution`, that draws instead of noise (arithmetic sampling, Vilnis et al. 2023, "Parallel
// Diverse Decoding for Large Language Models"). The candidates, in order of their ids (best first where top-k, top-p or
// min-p leave some out), divide the interval by their probabilities; the one whose part holds the point is drawn, and the
// point's place in that part draws the next token. So the state follows from the drawn tokens alone. A point that was
// magnified so often that its digits end gets new ones from the seed and its last digits.
struct Code {
  double point, resolution;
};

// Before anything else, for each listed token: l > 0 ? l / repetition : l * repetition, then l + add.
struct Adjustments {
  int count;
  const int32_t* tokens;
  const float* repetition;
  const float* add;
};

// Bit i & 31 of word i >> 5: token i may be picked. Of the words that cover the vocabulary; nullptr: all may.
using Mask = const uint32_t*;

struct Pick {
  int token;
  float logprob;  // under the model's own distribution, before adjustments and temperature
  float score;    // the same for `scored`
};

// `position`: where the drawn token will stand; with the seed and the token id it fixes the noise.
// Tokens outside `allowed`, of which there must be one, are not picked; log-probabilities do not know of it.
// scored: a token whose log-probability is wanted, whatever is drawn.
// code: draws where there is one and the temperature is not 0, and becomes the next token's.
// topTokens and topLogprobs: [top], best first. Restores `logits`. Throws CoreError ERR_RUNTIME_NAN.
Pick pick(const Kernels&, float* logits, int vocab, const PickSettings&, const Adjustments&, Mask allowed, uint32_t position, int scored,
          Code* code, int top, int32_t* topTokens, float* topLogprobs);

}  // namespace outrider
