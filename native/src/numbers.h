// Number formats and elementary functions with one meaning on every machine. Scalar; the vector versions repeat the
// same operations lane by lane.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace outrider {

inline float bitsToFloat(uint32_t u) { float f; std::memcpy(&f, &u, 4); return f; }
inline uint32_t floatToBits(float f) { uint32_t u; std::memcpy(&u, &f, 4); return u; }

inline float halfToFloat(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return bitsToFloat(sign | 0x7f800000 | (mantissa ? 0x400000 | (mantissa << 13) : 0));
  if (exponent == 0) {
    const float magnitude = float(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return bitsToFloat(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// Round to nearest, ties to even; overflow to infinity, as the processors' conversion does.
inline uint16_t floatToHalf(float f) {
  const uint32_t u = floatToBits(f), sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
  if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);
  if (magnitude < 0x38800000) {
    // Subnormal half: adding 0.5 makes the float unit round at the right bit.
    const float shifted = bitsToFloat(magnitude) + 0.5f;
    return uint16_t(sign | (floatToBits(shifted) - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return uint16_t(sign | ((rounded - 0x38000000) >> 13));
}

inline float bfloatToFloat(uint16_t b) { return bitsToFloat(uint32_t(b) << 16); }

// exp: x = n ln 2 + r, polynomial on r (Cephes expf), n added to the exponent. 0 below -87.3 and for NaN, exp(88)
// above 88. |error| < 2 ulp.
constexpr float kExpLow = -87.3365f, kExpHigh = 88.0f;
constexpr float kLog2e = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
constexpr float kExp0 = 1.9875691500e-4f, kExp1 = 1.3981999507e-3f, kExp2 = 8.3334519073e-3f, kExp3 = 4.1665795894e-2f,
                kExp4 = 1.6666665459e-1f, kExp5 = 5.0000001201e-1f;

inline float exp16(float x) {
  if (!(x > kExpLow)) return 0.0f;
  x = x < kExpHigh ? x : kExpHigh;
  const float shifted = std::fma(x, kLog2e, kRoundMagic);
  const float n = shifted - kRoundMagic;
  float r = std::fma(n, -kLn2High, x);
  r = std::fma(n, -kLn2Low, r);
  float p = std::fma(kExp0, r, kExp1);
  p = std::fma(p, r, kExp2);
  p = std::fma(p, r, kExp3);
  p = std::fma(p, r, kExp4);
  p = std::fma(p, r, kExp5);
  p = std::fma(p, r * r, r) + 1.0f;
  return bitsToFloat(floatToBits(p) + (floatToBits(shifted) << 23));
}

// tanh (Cephes tanhf): a polynomial below 0.625, 1 - 2 / (exp(2 |x|) + 1) above. |error| < 2 ulp; NaN stays NaN.
constexpr float kTanhSplit = 0.625f;
constexpr float kTanh0 = -5.70498872745e-3f, kTanh1 = 2.06390887954e-2f, kTanh2 = -5.37397155531e-2f, kTanh3 = 1.33314422036e-1f,
                kTanh4 = -3.33332819422e-1f;

inline float tanh16(float x) {
  if (x != x) return x;
  const float a = bitsToFloat(floatToBits(x) & 0x7fffffff);
  if (!(kTanhSplit > a))
    return bitsToFloat(floatToBits(1.0f - 2.0f / (exp16(a + a) + 1.0f)) | (floatToBits(x) & 0x80000000u));
  const float z = x * x;
  float p = std::fma(kTanh0, z, kTanh1);
  p = std::fma(p, z, kTanh2);
  p = std::fma(p, z, kTanh3);
  p = std::fma(p, z, kTanh4);
  return std::fma(p * z, x, x);
}

// GELU in its tanh form, x / 2 * (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + exp(-2 u)).
constexpr float kGelu1 = -1.5957691216f, kGelu3 = -0.0713548163f;  // of -2 u

inline float gelu16(float x) { return x / (1.0f + exp16(x * std::fma(kGelu3, x * x, kGelu1))); }

// log for normal positive x: x = 2^e m, m in [sqrt(1/2), sqrt 2); polynomial on m - 1 (Cephes logf). |error| < 2 ulp.
constexpr uint32_t kLogSplit = 0x3f3504f3;  // bits of sqrt(1/2)
constexpr float kLog0 = 7.0376836292e-2f, kLog1 = -1.1514610310e-1f, kLog2 = 1.1676998740e-1f, kLog3 = -1.2420140846e-1f,
                kLog4 = 1.4249322787e-1f, kLog5 = -1.6668057665e-1f, kLog6 = 2.0000714765e-1f, kLog7 = -2.4999993993e-1f,
                kLog8 = 3.3333331174e-1f;

inline float log16(float x) {
  const uint32_t offset = floatToBits(x) - kLogSplit;
  const float e = float(int32_t(offset) >> 23);
  const float f = bitsToFloat((offset & 0x7fffff) + kLogSplit) - 1.0f;
  float p = std::fma(kLog0, f, kLog1);
  p = std::fma(p, f, kLog2);
  p = std::fma(p, f, kLog3);
  p = std::fma(p, f, kLog4);
  p = std::fma(p, f, kLog5);
  p = std::fma(p, f, kLog6);
  p = std::fma(p, f, kLog7);
  p = std::fma(p, f, kLog8);
  const float f2 = f * f;
  p = (p * f) * f2;
  p = std::fma(e, -2.12194440e-4f, p);
  p = std::fma(f2, -0.5f, p);
  return std::fma(e, 0.693359375f, f + p);
}

// Counter-based noise: `key` mixes seed and position, the result also the token. Two rounds of a 32-bit finalizer.
inline uint32_t mix32(uint32_t h) {
  h ^= h >> 16; h *= 0x85ebca6bu; h ^= h >> 13; h *= 0xc2b2ae35u; h ^= h >> 16;
  return h;
}
inline uint64_t noiseKey(uint64_t seed, uint32_t position) {
  uint64_t z = seed * 0x9e3779b97f4a7c15ull + (uint64_t(position) + 1) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
// Standard Gumbel noise -log(-log(u)), u of 24 bits in (0, 1).
inline float gumbel(uint64_t key, uint32_t token) {
  const uint32_t h = mix32(mix32(token + uint32_t(key)) ^ uint32_t(key >> 32));
  float u = (float(int32_t(h >> 8)) + 0.5f) * 0x1p-24f;
  u = u < 0x1.fffffep-1f ? u : 0x1.fffffep-1f;
  return -log16(-log16(u));
}

// The one order in which 16 lanes become one number.
inline float reduce16(const float* lane) {
  float a[8], b[4];
  for (int i = 0; i < 8; i++) a[i] = lane[i] + lane[i + 8];
  for (int i = 0; i < 4; i++) b[i] = a[i] + a[i + 4];
  const float c0 = b[0] + b[2], c1 = b[1] + b[3];
  return c0 + c1;
}

}  // namespace outrider
