// One weight of a tile (kernels.h) at a time, in plain C++: what the packed bits mean. Not for files that are compiled
// for one instruction set.
#pragma once
#include "kernels.h"
#include "numbers.h"

namespace outrider {

inline uint16_t read16(const uint8_t* p) { uint16_t v; std::memcpy(&v, p, 2); return v; }

// In a block of a quantised type, for column c: d, and m or dmin.
inline float blockScale(WeightType type, const uint8_t* block, int c) {
  return halfToFloat(read16(block + halvesOffset(type) + 2 * c));
}
inline float blockMinimum(WeightType type, const uint8_t* block, int c) {
  return halfToFloat(read16(block + halvesOffset(type) + 32 + 2 * c));
}

// Integer weight of input i of the block, its zero point subtracted.
inline int integerWeight(WeightType type, const uint8_t* block, int c, int i) {
  const uint8_t* quants = block + quantsOffset(type) + (i / kBlock) * (lowBytes(type) + highBytes(type));
  const uint8_t* high = quants + lowBytes(type);
  const int g = i % kBlock / 4, lane = 4 * c + i % 4;
  const auto crumb = [&](const uint8_t* from) { return from[64 * (g / 4) + lane] >> 2 * (g % 4) & 3; };
  int q;
  if (type == WeightType::Q8_0) q = quants[64 * g + lane];
  else if (lowBytes(type) == 128) q = crumb(quants);
  else q = quants[64 * (g % 4) + lane] >> (g < 4 ? 0 : 4) & 15;
  if (type == WeightType::Q6_K) q |= crumb(high) << 4;
  else if (highBytes(type) > 0) q |= (high[lane] >> g & 1) << (type == WeightType::Q3_K ? 2 : 4);
  if (type == WeightType::IQ4_NL || type == WeightType::IQ4_XS) return kIq4[q];
  return q - zeroPoint(type);
}

// sc (its zero point subtracted) and mn of input i of the block; 1 and 1 in blocks of 32 inputs.
struct SubScale { int scale, minimum; };
inline SubScale subScale(WeightType type, const uint8_t* block, int c, int i) {
  const auto line = [&](int n) { return int(block[kLanes * n + c]); };
  const int s = hasHalfBlocks(type) ? i / 16 : i / kBlock;
  switch (type) {
    case WeightType::Q2_K: return {line(s) & 15, line(s) >> 4};
    case WeightType::Q3_K: return {((line(s % 8) >> (s < 8 ? 0 : 4) & 15) | (line(8 + s % 4) >> 2 * (s / 4) & 3) << 4) - 32, 0};
    case WeightType::Q4_K:
    case WeightType::Q5_K:
      if (s < 4) return {line(s) & 63, line(s + 4) & 63};
      return {(line(s + 4) & 15) | (line(s - 4) >> 6) << 4, line(s + 4) >> 4 | (line(s) >> 6) << 4};
    case WeightType::Q6_K: return {int8_t(line(s)), 0};
    case WeightType::IQ4_XS: return {((line(s / 2) >> 4 * (s % 2) & 15) | (line(4 + s / 4) >> 2 * (s % 4) & 3) << 4) - 32, 0};
    default: return {1, 1};
  }
}

// The weight of input i of the block as float32. Each product is exact; one rounding where minima are added.
inline float blockWeight(WeightType type, const uint8_t* block, int c, int i) {
  const SubScale sub = subScale(type, block, c, i);
  const float q = float(integerWeight(type, block, c, i)), d = blockScale(type, block, c) * float(sub.scale);
  if (!hasMinima(type)) return q * d;
  const float m = blockMinimum(type, block, c);
  return std::fma(q, d, isSuperBlock(type) ? -(m * float(sub.minimum)) : m);
}

}  // namespace outrider
