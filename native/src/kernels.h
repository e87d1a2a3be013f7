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
constexpr int kMaxQueries = 24;

enum class WeightType : int {  // ggml's numbers
  F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13,
  Q6_K = 14, IQ4_NL = 20, IQ4_XS = 23, BF16 = 30
};
template <WeightType... types> struct WeightTypes {
  static constexpr int count = sizeof...(types);
  static constexpr WeightType list[sizeof...(types)] = {types...};
};
// In the order of the tables in Kernels; the first three are not block-quantised.
using AllWeightTypes =
    WeightTypes<WeightType::F32, WeightType::F16, WeightType::BF16, WeightType::Q4_0, WeightType::Q4_1, WeightType::Q5_0,
                WeightType::Q5_1, WeightType::Q8_0, WeightType::Q2_K, WeightType::Q3_K, WeightType::Q4_K, WeightType::Q5_K,
                WeightType::Q6_K, WeightType::IQ4_NL, WeightType::IQ4_XS>;
constexpr int kNumWeightTypes = AllWeightTypes::count;

// Inline functions of this file are forced inline: a copy compiled with one instruction set must not be what the
// linker keeps for all.

// The index in AllWeightTypes, -1 for a number that is none of them.
[[gnu::always_inline]] constexpr int typeIndex(WeightType type) {
  for (int i = 0; i < kNumWeightTypes; i++)
    if (AllWeightTypes::list[i] == type) return i;
  return -1;
}
[[gnu::always_inline]] constexpr bool isBlockQuantised(WeightType type) { return typeIndex(type) > 2; }

// A weight matrix [columns out, k in] lies in tiles of 16 output columns, inputs in order. Where all tiles of
// a matrix have a partner, two neighbours of Q4_0, Q4_1 and Q8_0 alternate block by block (`paired`): a kernel that computes
// both at once loads each activation once for 32 columns, and reads one stream of memory.
//   F32/F16/BF16: for each input 16 values.
// The others in blocks of 32 or 256 inputs (blockInputs), each with the file's own numbers for 16 columns, a "line"
// being one of them for each column. "sc" and "mn" are small integers that belong to 16 or 32 inputs:
//            inputs  the block's bytes in order                                          weight
//   Q4_0     32      256 low; line of fp16 d                                             d * (q - 8)
//   Q4_1     32      256 low; lines of fp16 d, m                                         d * q + m
//   Q5_0     32      256 low, 64 high; line of fp16 d                                    d * (q - 16)
//   Q5_1     32      256 low, 64 high; lines of fp16 d, m                                d * q + m
//   Q8_0     32      512 bytes; line of fp16 d                                           d * (q - 128)
//   IQ4_NL   32      256 low; line of fp16 d                                             d * kIq4[q]
//   Q2_K     256     16 lines sc|mn; fp16 d, dmin; 8 times 128 crumbs                    d * sc * q - dmin * mn
//   Q3_K     256     12 lines of scales; fp16 d; 8 times (128 crumbs, 64 high)           d * (sc - 32) * (q - 4)
//   Q4_K     256     12 lines of scales; fp16 d, dmin; 8 times 256 low                   d * sc * q - dmin * mn
//   Q5_K     256     12 lines of scales; fp16 d, dmin; 8 times (256 low, 64 high)        d * sc * q - dmin * mn
//   Q6_K     256     16 lines of int8 sc; fp16 d; 8 times (256 low, 128 crumbs)          d * sc * (q - 32)
//   IQ4_XS   256     4 lines scales_l, 2 lines scales_h; fp16 d; 8 times 256 low         d * (sc - 32) * kIq4[q]
// Within 32 inputs, g = 0..7 counts groups of four inputs, j = 0..3 the inputs of a group, c columns:
//   low (4 bits a weight): byte 64 * (g % 4) + 4c + j, the low half for g < 4, the high half for the others;
//   crumbs (2 bits): byte 64 * (g / 4) + 4c + j, from bit 2 * (g % 4); they are the low bits of q in Q2_K and Q3_K and
//     its bits 4 and 5 in Q6_K;
//   high (1 bit): byte 4c + j, bit g; bit 4 of q, in Q3_K bit 2;
//   bytes (8 bits): byte 64g + 4c + j.
// The scales of the K types and IQ4_XS stay packed as in the file, line i being the file's byte i:
//   Q2_K: line s belongs to inputs 16s to 16s + 15, sc in its low, mn in its high half. Q6_K: line s likewise.
//   Q3_K: sc of the 16 inputs s: low half (s < 8) or high half of line s % 8, and bits 2 * (s / 4) of line 8 + s % 4.
//   Q4_K, Q5_K: block s of 32: s < 4: the low 6 bits of lines s (sc) and s + 4 (mn); else the halves of line s + 4
//     (low: sc) and the upper 2 bits of lines s - 4 (sc) and s (mn).
//   IQ4_XS: block s of 32: half s % 2 of line s / 2, and bits 2 * (s % 4) of line 4 + s / 4.
[[gnu::always_inline]] constexpr bool isSuperBlock(WeightType type) {
  return type == WeightType::Q2_K || type == WeightType::Q3_K || type == WeightType::Q4_K || type == WeightType::Q5_K ||
         type == WeightType::Q6_K || type == WeightType::IQ4_XS;
}
constexpr int kSuperBlock = 256;
// Inputs of a block of the file's format; a row holds whole blocks.
[[gnu::always_inline]] constexpr int blockInputs(WeightType type) {
  return isSuperBlock(type) ? kSuperBlock : isBlockQuantised(type) ? kBlock : 1;
}
// Bytes of the file for a block of a row, and bytes of a tile for 16 such: nothing is added.
[[gnu::always_inline]] constexpr size_t blockBytes(WeightType type) {
  switch (type) {
    case WeightType::F32: return 4;
    case WeightType::F16:
    case WeightType::BF16: return 2;
    case WeightType::Q4_0:
    case WeightType::IQ4_NL: return 18;
    case WeightType::Q4_1: return 20;
    case WeightType::Q5_0: return 22;
    case WeightType::Q5_1: return 24;
    case WeightType::Q8_0: return 34;
    case WeightType::Q2_K: return 84;
    case WeightType::Q3_K: return 110;
    case WeightType::Q4_K: return 144;
    case WeightType::Q5_K: return 176;
    case WeightType::Q6_K: return 210;
    case WeightType::IQ4_XS: return 136;
  }
  return 0;
}
[[gnu::always_inline]] constexpr size_t tileBytes(WeightType type, int k) {
  return size_t(k / blockInputs(type)) * blockBytes(type) * kLanes;
}

[[gnu::always_inline]] constexpr bool pairs(WeightType type) {
  return type == WeightType::Q4_0 || type == WeightType::Q4_1 || type == WeightType::Q8_0;
}

// Where a tile of a matrix lies: block i at first + i * step.
struct TileBlocks {
  const uint8_t* first;
  size_t step;
};
[[gnu::always_inline]] inline TileBlocks tileBlocks(WeightType type, const uint8_t* weights, int k, bool paired, int tile) {
  const size_t block = blockBytes(type) * kLanes;
  if (!paired) return {weights + size_t(tile) * tileBytes(type, k), block};
  return {weights + size_t(tile / 2) * 2 * tileBytes(type, k) + size_t(tile % 2) * block, 2 * block};
}

// Where the parts of a block lie, in bytes from its start.
[[gnu::always_inline]] constexpr int lowBytes(WeightType type) {  // of 32 inputs
  return type == WeightType::Q8_0 ? 512 : type == WeightType::Q2_K || type == WeightType::Q3_K ? 128 : 256;
}
[[gnu::always_inline]] constexpr int highBytes(WeightType type) {  // of 32 inputs, behind the low bits
  switch (type) {
    case WeightType::Q5_0:
    case WeightType::Q5_1:
    case WeightType::Q3_K:
    case WeightType::Q5_K: return 64;
    case WeightType::Q6_K: return 128;
    default: return 0;
  }
}
[[gnu::always_inline]] constexpr int scaleLines(WeightType type) {  // of 16 bytes
  switch (type) {
    case WeightType::Q2_K:
    case WeightType::Q6_K: return 16;
    case WeightType::Q3_K:
    case WeightType::Q4_K:
    case WeightType::Q5_K: return 12;
    case WeightType::IQ4_XS: return 6;
    default: return 0;
  }
}
[[gnu::always_inline]] constexpr bool hasMinima(WeightType type) {
  return type == WeightType::Q4_1 || type == WeightType::Q5_1 || type == WeightType::Q2_K || type == WeightType::Q4_K ||
         type == WeightType::Q5_K;
}
[[gnu::always_inline]] constexpr int halvesOffset(WeightType type) {  // the line of fp16 d; that of m or dmin is next
  return isSuperBlock(type) ? scaleLines(type) * kLanes : lowBytes(type) + highBytes(type);
}
[[gnu::always_inline]] constexpr int quantsOffset(WeightType type) {
  return isSuperBlock(type) ? halvesOffset(type) + (hasMinima(type) ? 64 : 32) : 0;
}
// sc and mn belong to 16 inputs.
[[gnu::always_inline]] constexpr bool hasHalfBlocks(WeightType type) {
  return type == WeightType::Q2_K || type == WeightType::Q3_K || type == WeightType::Q6_K;
}
// What is subtracted from q.
[[gnu::always_inline]] constexpr int zeroPoint(WeightType type) {
  switch (type) {
    case WeightType::Q3_K: return 4;
    case WeightType::Q4_0: return 8;
    case WeightType::Q5_0: return 16;
    case WeightType::Q6_K: return 32;
    case WeightType::Q8_0: return 128;
    default: return 0;
  }
}
// The levels of IQ4_NL and IQ4_XS.
constexpr int8_t kIq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// A row of activations quantised to 8 bits, k a multiple of 32:
//   int8 q[k], then per block: float scale, float scale * sum(q), int32 sum(q), and int16 sums of its first and of its
//   last 16 q: four arrays of k / 32.
struct QuantisedRow {
  [[gnu::always_inline]] static constexpr size_t bytes(int k) { return (size_t(k) + size_t(k / kBlock) * 16 + 63) / 64 * 64; }
  [[gnu::always_inline]] static const int8_t* values(const uint8_t* row) { return reinterpret_cast<const int8_t*>(row); }
  [[gnu::always_inline]] static const float* scales(const uint8_t* row, int k) { return reinterpret_cast<const float*>(row + k); }
  [[gnu::always_inline]] static const float* scaledSums(const uint8_t* row, int k) { return scales(row, k) + k / kBlock; }
  [[gnu::always_inline]] static const int32_t* sums(const uint8_t* row, int k) {
    return reinterpret_cast<const int32_t*>(scaledSums(row, k) + k / kBlock);
  }
  [[gnu::always_inline]] static const int16_t* halfSums(const uint8_t* row, int k) {
    return reinterpret_cast<const int16_t*>(sums(row, k) + k / kBlock);
  }
};

// y[r][c] (+)= sum over k of w[c][k] * x[r][k], for all rows and for tiles [tileBegin, tileEnd).
//
// Quantised x, per column, y from 0, over blocks of 32 inputs in order; q_w is an integer without its zero point:
//   acc = sum of q_w * q_x, exact;  s = d * scale_x (rounded);  y = fma(float(acc), s, y);
//   then, with minima: y = fma(m, scaledSum_x, y).
// Types of 256 inputs with sc and mn for 32 are the same with d = d * (sc - its zero point) and m = -(dmin * mn), which
// are exact. Those with sc and mn for 16 (Q2_K, Q3_K, Q6_K):
//   acc = sc_0 * sum over the first 16 inputs + sc_1 * sum over the last, exact, |acc| < 2^24;  y as above;
//   then, with minima: n = mn_0 * (sum of the first 16 q_x) + mn_1 * (of the last), exact;
//   t = dmin * scale_x (rounded);  y = fma(-float(n), t, y).
// Float x: y = fma(w, x, y) over the inputs in order, w the dequantised weight as float32: with minima
//   fma(q, d, m) of the d and m above; the others' products are exact.
// accumulate: out = out + y (one rounded addition), else out = y.
struct MatmulArgs {
  const uint8_t* weights;  // the matrix
  int k;
  bool paired;
  int tileBegin, tileEnd;
  const void* x;           // quantised rows or float rows
  size_t xStride;          // bytes
  int rows;
  float* out;              // column c of tile t of row r: out[r * outStride + (t - tileBegin) * 16 + c]
  size_t outStride;        // floats
  bool accumulate;
  bool streamed;           // no cache holds all weights until they are read again
};
using MatmulFn = void (*)(const MatmulArgs&);

// Rows of a product that are finished for all of a thread's tiles before others begin: their activations stay in the
// second-level cache, and the weights come from memory once for so many rows.
[[gnu::always_inline]] constexpr int stepRows(size_t rowBytes) {
  const size_t fit = (size_t(512) << 10) / rowBytes / 8 * 8;
  return fit < 8 ? 8 : fit > 64 ? 64 : int(fit);
}

// Blocks of keys that are fetched before they are used, at most; less where blocks are large (kernels.inl).
constexpr int kMostAhead = 16;

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
  bool cold;           // keys and values are not in the caches yet
  const void* const* next;  // the first blocks of keys of the next call, where those are not in the caches either
  int nextCount;
  float* scratch;      // count * (largest end rounded up to 16 + valueStride) floats
};

struct Kernels {
  const char* name;
  MatmulFn matmulQuantised[kNumWeightTypes];  // by quantised rows, in the order of AllWeightTypes; null for float types
  MatmulFn matmulFloat[kNumWeightTypes];      // by float rows
  // Inputs [first, first + n) of a row of k; x holds these n. All are multiples of 32.
  // Per block of 32: a = max |x|, scale = a / 127, q = round to even of x * (127 / a), all 0 where a <= 2^-100.
  // A value that is not finite makes scale and scaled sum NaN, so that it reaches the logits, where it is refused.
  void (*quantise)(const float* x, int k, int first, int n, uint8_t* out);
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
const Kernels* wasm();

}  // namespace outrider
