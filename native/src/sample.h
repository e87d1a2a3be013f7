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

// Before anything else, for each listed token: l > 0 ? l / repetition : l * repetition, then l + add.
struct Adjustments {
  int count;
  const int32_t* tokens;
  const float* repetition;
  const float* add;
};

struct Pick {
  int token;
  float logprob;  // under the model's own distribution, before adjustments and temperature
  float score;    // the same for `scored`
};

// `position`: where the drawn token will stand; with the seed and the token id it fixes the noise.
// scored: a token whose log-probability is wanted, whatever is drawn.
// topTokens and topLogprobs: [top], best first. Restores `logits`. Throws CoreError ERR_RUNTIME_NAN.
Pick pick(const Kernels&, float* logits, int vocab, const PickSettings&, const Adjustments&, uint32_t position, int scored,
          int top, int32_t* topTokens, float* topLogprobs);

}  // namespace outrider
