// Float weights to blocks of 8 or 4 bits while a model is loaded, with the rounding of ggml's reference functions
// (quantize_row_q8_0_ref, quantize_row_q4_1_ref): the same blocks as a file made by llama.cpp from the same weights.
#pragma once
#include "weight.h"

namespace outrider {

// Weight::pack for rows that lie in another type: `from` is F32, F16 or BF16, the weight's type Q8_0 or Q4_1. Throws
// CoreError. Per block of 32 weights x (all arithmetic in float32, fp16 to nearest even, round = half away from zero):
//   Q8_0: d = max |x| / 127;            q = round(x * (1 / d));                        stored: fp16 d, 32 int8 q
//   Q4_1: m = min x, d = (max - m) / 15; q = min(15, int((x - m) * (1 / d) + 0.5));    stored: fp16 d, fp16 m, 16 bytes:
//         byte i holds q[i] (low) and q[i + 16] (high)
// 1 / d is 0 where d is 0. A block with a NaN or an infinity, or whose d is above fp16's largest, gets d = NaN, so that
// it shows at run time as what it is (ERR_RUNTIME_NAN).
void quantiseRows(Weight& weight, int from, const uint8_t* bytes, size_t size, int64_t first);

}  // namespace outrider
