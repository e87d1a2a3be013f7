// The operators' inner loops, and what they mean.
//
// `reference()` (reference.cpp, plain C++) is the definition. Every other table must give the same bits for all
// inputs: each output number is computed by one thread in one fixed order that depends on its own row only, so row
// counts, tiles, threads and instruction sets cannot change it. Integer sums are exact in any order; floating-point
// sums run over 16 lanes (lane = index mod 16) and end in the tree of `reduce16`; multiply-adds are fused where
// written `fma` and nowhere else (-ffp-contract=off).
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace outrider {

constexpr int kLanes = 16;   // columns of a weight tile, positions of a cache block, lanes of a sum
constexpr int kBlock = 32;   // inputs that share a scale, in weights and in quantised activations
constexpr int kMaxQueries = 8;

enum class WeightType : int { F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q8_0 = 8, BF16 = 30 };  // ggml's numbers

// Inline functions of this file are forced inline: a copy compiled with one instruction set must not be what the
// linker keeps for all.

// A weight matrix [columns out, k in] lies in tiles of 16 output columns, inputs in order:
//   F32/F16/BF16: for each input 16 values.
//   Q4_0: per 32 inputs 256 bytes of nibbles, 16 fp16 scales d.            w = d * (q - 8)
//   Q4_1: per 32 inputs 256 bytes of nibbles, 16 fp16 d, 16 fp16 minima m. w = d * q + m
//   Q8_0: per 32 inputs 512 bytes (q + 128), 16 fp16 d.                    w = d * (byte - 128)
// Nibbles: byte 64*g + 4*c + j holds input 4*g + j (low) and input 16 + 4*g + j (high) of column c, g = 0..3.
// Bytes (Q8_0): byte 64*g + 4*c + j holds input 4*g + j of column c, g = 0..7.
[[gnu::always_inline]] constexpr size_t tileBytes(WeightType type, int k) {
  switch (type) {
    case WeightType::F32: return size_t(k) * 64;
    case WeightType::F16:
    case WeightType::BF16: return size_t(k) * 32;
    case WeightType::Q4_0: return size_t(k / kBlock) * 288;
    case WeightType::Q4_1: return size_t(k / kBlock) * 320;
    case WeightType::Q8_0: return size_t(k / kBlock) * 544;
  }
  return 0;
}
[[gnu::always_inline]] constexpr bool isBlockQuantised(WeightType type) {
  return type == WeightType::Q4_0 || type == WeightType::Q4_1 || type == WeightType::Q8_0;
}

// A row of activations quantised to 8 bits, k a multiple of 32:
//   int8 q[k], then per block: float scale, float scale * sum(q), int32 sum(q): three arrays of k / 32.
struct QuantisedRow {
  [[gnu::always_inline]] static constexpr size_t bytes(int k) { return (size_t(k) + size_t(k / kBlock) * 12 + 63) / 64 * 64; }
  [[gnu::always_inline]] static const int8_t* values(const uint8_t* row) { return reinterpret_cast<const int8_t*>(row); }
  [[gnu::always_inline]] static const float* scales(const uint8_t* row, int k) { return reinterpret_cast<const float*>(row + k); }
  [[gnu::always_inline]] static const float* scaledSums(const uint8_t* row, int k) { return scales(row, k) + k / kBlock; }
  [[gnu::always_inline]] static const int32_t* sums(const uint8_t* row, int k) {
    return reinterpret_cast<const int32_t*>(scaledSums(row, k) + k / kBlock);
  }
};

// y[r][c] (+)= sum over k of w[c][k] * x[r][k], for all rows and for tiles [tileBegin, tileEnd).
//
// Quantised x, per column, y from 0, over the blocks in order:
//   acc = sum of q_w * q_x, exact;  s = d * scale_x (rounded);  y = fma(float(acc), s, y);
//   then, with minima: y = fma(m, scaledSum_x, y).          (q_w is q - 8 for Q4_0, byte - 128 for Q8_0)
// Float x: y = fma(w, x, y) over the inputs in order, w the dequantised weight as float32
//   (Q4_1: fma(q, d, m); the others' products are exact).
// accumulate: out = out + y (one rounded addition), else out = y.
struct MatmulArgs {
  const uint8_t* weights;  // the first tile of the matrix
  int k;
  int tileBegin, tileEnd;
  const void* x;           // quantised rows or float rows
  size_t xStride;          // bytes
  int rows;
  float* out;              // column c of row r: out[r * outStride + c]
  size_t outStride;        // floats
  bool accumulate;
};
using MatmulFn = void (*)(const MatmulArgs&);

// Softmax attention of `count` <= kMaxQueries queries over one key/value head. Positions lie in blocks of 16:
//   keys[b]:   [headDim][16] (float16 or float32), values[b]: [16][valueStride], valueStride a multiple of 16.
// Query j sees the positions first[j] <= t < end[j].
//   s_t = (sum over d in order of fma(q_d, k_td, s)) * scale;   with a soft cap: s_t = tanh16(s_t * (1 / softCap)) * softCap
//   m = max s_t;   p_t = exp16(s_t - m)
//   z = reduce16 of lane sums (lane = t mod 16, t ascending);   o_d = (sum over t in order of fma(p_t, v_td, o)) * (1 / z)
struct AttentionArgs {
  int headDim;
  int valueStride;
  const void* const* keys;
  const void* const* values;
  int count;
  const float* const* queries;
  const int* first;
  const int* end;
  float* const* outs;  // [headDim] each
  float scale;
  float softCap;       // 0: none
  float* scratch;      // count * (largest end rounded up to 16) floats
};

struct Kernels {
  const char* name;
  MatmulFn matmulQuantised[3];  // Q4_0, Q4_1, Q8_0 by float-scaled int8 rows
  MatmulFn matmulFloat[6];      // F32, F16, BF16, Q4_0, Q4_1, Q8_0 by float rows
  // Per block of 32: a = max |x|, scale = a / 127, q = round to even of x * (127 / a), all 0 where a <= 2^-100.
  void (*quantise)(const float* x, int k, uint8_t* out);
  // y = (x * (1 / sqrt(mean of x^2 + eps))) * weight; the squares add up by fma over 16 lanes.
  void (*rmsNorm)(const float* x, const float* weight, int k, float eps, float* y);
  // d = x - mean of x; y = fma(d * (1 / sqrt(mean of d^2 + eps)), weight, bias); both sums over 16 lanes.
  void (*layerNorm)(const float* x, const float* weight, const float* bias, int k, float eps, float* y);
  void (*attentionF16)(const AttentionArgs&);
  void (*attentionF32)(const AttentionArgs&);
  // Rotates pairs (x[i], x[i + 1]) of each head (interleaved), or (x[i], x[i + half]): half = rotary / 2 pairs.
  //   x0' = fma(x0, cos, -(x1 * sin)), x1' = fma(x0, sin, x1 * cos);  cosSin: half cosines, then half sines.
  void (*rope)(float* x, int heads, int headDim, int rotary, bool interleaved, const float* cosSin);
  void (*siluMul)(const float* gate, const float* up, int k, float* y);  // y = (g / (1 + exp16(-g))) * u
  void (*gelu)(const float* x, int k, float* y);                               // y = gelu16(x)
  void (*geluMul)(const float* gate, const float* up, int k, float* y);        // y = gelu16(g) * u
  void (*softCap)(const float* x, int k, float cap, float* y);                 // y = tanh16(x * (1 / cap)) * cap
  void (*scale)(const float* x, int k, float factor, float* y);                // y = x * factor
  void (*addScaled)(const float* x, int k, float factor, float* y);            // y = fma(x, factor, y)
  void (*add)(const float* a, const float* b, int k, float* y);
  // Keys of one position into its block (lane = position mod 16), values as a row.
  void (*storeF16)(const float* x, int k, uint16_t* out, int stride);
  float (*maximum)(const float* x, int n);          // NaN anywhere gives NaN
  float (*sumExp)(const float* x, int n, float m, float inverseTemperature);  // reduce16 of exp16((x - m) * it)
  int (*firstAbove)(const float* x, int from, int n, float bound);  // first index with x > bound; n if none
  // Arg-max of (x - m) * it + gumbel(key, i), ties to the lowest index.
  int (*gumbelArgmax)(const float* x, int n, float m, float inverseTemperature, uint64_t key);
};

const Kernels& reference();
// The fast tables that this build has and this processor can run, best first.
std::vector<const Kernels*> fastKernels();
const Kernels* avx2();  // nullptr where this build has none; fastKernels checks the processor
const Kernels* avx512();
const Kernels* neon();
const Kernels* neonDotprod();

// Index into Kernels::matmulFloat and matmulQuantised (Q4_0 = 0 there).
[[gnu::always_inline]] constexpr int floatIndex(WeightType type) {
  switch (type) {
    case WeightType::F32: return 0;
    case WeightType::F16: return 1;
    case WeightType::BF16: return 2;
    case WeightType::Q4_0: return 3;
    case WeightType::Q4_1: return 4;
    case WeightType::Q8_0: return 5;
  }
  return -1;
}

}  // namespace outrider
