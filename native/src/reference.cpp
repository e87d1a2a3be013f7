// The definition of every operator in plain C++. Compiled for any processor of the platform; slow on purpose.
#include "kernels.h"
#include "numbers.h"
#include "tile.h"

namespace outrider {
namespace {

constexpr float kNegativeInfinity = -__builtin_inff();

template <WeightType type>
void matmulQuantised(const MatmulArgs& a) {
  constexpr int inputs = blockInputs(type);
  for (int tile = a.tileBegin; tile < a.tileEnd; tile++)
    for (int r = 0; r < a.rows; r++) {
      const TileBlocks at = tileBlocks(type, a.weights, a.k, a.paired, tile);
      const uint8_t* row = static_cast<const uint8_t*>(a.x) + size_t(r) * a.xStride;
      const float* scale = QuantisedRow::scales(row, a.k);
      const float* scaledSum = QuantisedRow::scaledSums(row, a.k);
      const int16_t* halfSums = QuantisedRow::halfSums(row, a.k);
      for (int c = 0; c < kLanes; c++) {
        float y = 0;
        for (int b = 0; b < a.k / kBlock; b++) {
          const uint8_t* block = at.first + size_t(b * kBlock / inputs) * at.step;
          const int8_t* x = QuantisedRow::values(row) + b * kBlock;
          const int first = b * kBlock % inputs;
          const SubScale sub[2] = {subScale(type, block, c, first), subScale(type, block, c, first + 16)};
          int dot[2] = {};
          for (int i = 0; i < kBlock; i++) dot[i / 16] += integerWeight(type, block, c, first + i) * x[i];
          const float d = blockScale(type, block, c);
          if (hasHalfBlocks(type)) {
            const int acc = sub[0].scale * dot[0] + sub[1].scale * dot[1];
            y = std::fma(float(acc), d * scale[b], y);
            if (hasMinima(type)) {
              const int n = sub[0].minimum * halfSums[2 * b] + sub[1].minimum * halfSums[2 * b + 1];
              y = std::fma(-float(n), blockMinimum(type, block, c) * scale[b], y);
            }
            continue;
          }
          y = std::fma(float(dot[0] + dot[1]), d * float(sub[0].scale) * scale[b], y);
          if (hasMinima(type)) {
            const float m = blockMinimum(type, block, c);
            y = std::fma(isSuperBlock(type) ? -(m * float(sub[0].minimum)) : m, scaledSum[b], y);
          }
        }
        float* out = a.out + size_t(r) * a.outStride + size_t(tile - a.tileBegin) * kLanes + c;
        *out = a.accumulate ? *out + y : y;
      }
    }
}

template <WeightType type>
float weightAt(TileBlocks tile, int c, int i) {
  const uint8_t* block = tile.first + size_t(i / blockInputs(type)) * tile.step;
  switch (type) {
    case WeightType::F32: { float f; std::memcpy(&f, block + c * 4, 4); return f; }
    case WeightType::F16: return halfToFloat(read16(block + c * 2));
    case WeightType::BF16: return bfloatToFloat(read16(block + c * 2));
    default: return blockWeight(type, block, c, i % blockInputs(type));
  }
}

template <WeightType type>
void matmulFloat(const MatmulArgs& a) {
  for (int tile = a.tileBegin; tile < a.tileEnd; tile++)
    for (int r = 0; r < a.rows; r++) {
      const float* x = reinterpret_cast<const float*>(static_cast<const uint8_t*>(a.x) + size_t(r) * a.xStride);
      for (int c = 0; c < kLanes; c++) {
        float y = 0;
        for (int i = 0; i < a.k; i++) y = std::fma(weightAt<type>(tileBlocks(type, a.weights, a.k, a.paired, tile), c, i), x[i], y);
        float* out = a.out + size_t(r) * a.outStride + size_t(tile - a.tileBegin) * kLanes + c;
        *out = a.accumulate ? *out + y : y;
      }
    }
}

void quantise(const float* x, int k, int first, int n, uint8_t* out) {
  int8_t* q = reinterpret_cast<int8_t*>(out);
  float* scale = reinterpret_cast<float*>(out + k);
  float* scaledSum = scale + k / kBlock;
  int32_t* sums = reinterpret_cast<int32_t*>(scaledSum + k / kBlock);
  int16_t* halfSums = reinterpret_cast<int16_t*>(sums + k / kBlock);
  for (int b = first / kBlock; b < (first + n) / kBlock; b++, x += kBlock) {
    float largest = 0;
    for (int i = 0; i < kBlock; i++) largest = std::fmax(largest, std::fabs(x[i]));
    bool finite = true;
    for (int i = 0; i < kBlock; i++) finite = finite && std::isfinite(x[i]);
    const float inverse = largest > 0x1p-100f ? 127.0f / largest : 0.0f;
    int sum[2] = {};
    for (int i = 0; i < kBlock; i++) {
      // |x * inverse| <= 127.00001: the magic number rounds to even and the result fits int8.
      const float shifted = x[i] * inverse + kRoundMagic;
      const int8_t value = int8_t(floatToBits(shifted) & 0xff);
      q[b * kBlock + i] = value;
      sum[i / 16] += value;
    }
    scale[b] = finite ? largest / 127.0f : __builtin_nanf("");
    scaledSum[b] = finite ? scale[b] * float(sum[0] + sum[1]) : __builtin_nanf("");
    sums[b] = sum[0] + sum[1];
    for (int h = 0; h < 2; h++) halfSums[2 * b + h] = int16_t(sum[h]);
  }
}

void rmsNorm(const float* x, const float* weight, int k, float eps, float* y) {
  float lanes[kLanes] = {};
  for (int i = 0; i < k; i++) lanes[i % kLanes] = std::fma(x[i], x[i], lanes[i % kLanes]);
  const float inverse = 1.0f / std::sqrt(reduce16(lanes) / float(k) + eps);
  for (int i = 0; i < k; i++) y[i] = (x[i] * inverse) * weight[i];
}

void layerNorm(const float* x, const float* weight, const float* bias, int k, float eps, float* y) {
  float sums[kLanes] = {}, squares[kLanes] = {};
  for (int i = 0; i < k; i++) sums[i % kLanes] += x[i];
  const float mean = reduce16(sums) / float(k);
  for (int i = 0; i < k; i++) squares[i % kLanes] = std::fma(x[i] - mean, x[i] - mean, squares[i % kLanes]);
  const float inverse = 1.0f / std::sqrt(reduce16(squares) / float(k) + eps);
  for (int i = 0; i < k; i++) y[i] = std::fma((x[i] - mean) * inverse, weight[i], bias[i]);
}

template <bool half>
float cached(const void* block, size_t index) {
  return half ? halfToFloat(static_cast<const uint16_t*>(block)[index]) : static_cast<const float*>(block)[index];
}

template <bool half>
void attention(const AttentionArgs& a) {
  for (int j = 0; j < a.count; j++) {
    float* p = a.scratch;
    float m = kNegativeInfinity;
    for (int t = a.first[j]; t < a.end[j]; t++) {
      float s = 0;
      for (int d = 0; d < a.headDim; d++)
        s = std::fma(a.queries[j][d], cached<half>(a.keys[t / kLanes], size_t(d) * kLanes + t % kLanes), s);
      p[t] = s * a.scale;
      if (a.softCap != 0) p[t] = tanh16(p[t] * (1.0f / a.softCap)) * a.softCap;
      m = p[t] > m ? p[t] : m;
    }
    float lanes[kLanes] = {};
    for (int t = a.first[j]; t < a.end[j]; t++) {
      p[t] = exp16(p[t] - m);
      lanes[t % kLanes] += p[t];
    }
    const float inverse = 1.0f / reduce16(lanes);
    for (int d = 0; d < a.headDim; d++) {
      float o = 0;
      for (int t = a.first[j]; t < a.end[j]; t++)
        o = std::fma(p[t], cached<half>(a.values[t / kLanes], size_t(t % kLanes) * a.valueStride + d), o);
      a.outs[j][d] = o * inverse;
    }
  }
}

void rope(float* x, int heads, int headDim, int rotary, bool interleaved, const float* cosSin) {
  const int half = rotary / 2;
  for (int h = 0; h < heads; h++)
    for (int i = 0; i < half; i++) {
      float* p0 = x + size_t(h) * headDim + (interleaved ? 2 * i : i);
      float* p1 = interleaved ? p0 + 1 : p0 + half;
      const float x0 = *p0, x1 = *p1, c = cosSin[i], s = cosSin[half + i];
      *p0 = std::fma(x0, c, -(x1 * s));
      *p1 = std::fma(x0, s, x1 * c);
    }
}

void siluMul(const float* gate, const float* up, int k, float* y) {
  for (int i = 0; i < k; i++) y[i] = (gate[i] / (1.0f + exp16(-gate[i]))) * up[i];
}

void gelu(const float* x, int k, float* y) {
  for (int i = 0; i < k; i++) y[i] = gelu16(x[i]);
}

void geluMul(const float* gate, const float* up, int k, float* y) {
  for (int i = 0; i < k; i++) y[i] = gelu16(gate[i]) * up[i];
}

void softCap(const float* x, int k, float cap, float* y) {
  for (int i = 0; i < k; i++) y[i] = tanh16(x[i] * (1.0f / cap)) * cap;
}

void scale(const float* x, int k, float factor, float* y) {
  for (int i = 0; i < k; i++) y[i] = x[i] * factor;
}

void addScaled(const float* x, int k, float factor, float* y) {
  for (int i = 0; i < k; i++) y[i] = std::fma(x[i], factor, y[i]);
}

void add(const float* a, const float* b, int k, float* y) {
  for (int i = 0; i < k; i++) y[i] = a[i] + b[i];
}

void storeF16(const float* x, int k, uint16_t* out, int stride) {
  for (int i = 0; i < k; i++) out[size_t(i) * stride] = floatToHalf(x[i]);
}

float maximum(const float* x, int n) {
  float m = kNegativeInfinity;
  for (int i = 0; i < n; i++) {
    if (x[i] != x[i]) return x[i];
    m = x[i] > m ? x[i] : m;
  }
  return m;
}

float sumExp(const float* x, int n, float m, float inverseTemperature) {
  float lanes[kLanes] = {};
  for (int i = 0; i < n; i++) lanes[i % kLanes] += exp16((x[i] - m) * inverseTemperature);
  return reduce16(lanes);
}

int firstAbove(const float* x, int from, int n, float bound) {
  for (int i = from; i < n; i++)
    if (x[i] > bound) return i;
  return n;
}

int gumbelArgmax(const float* x, int n, float m, float inverseTemperature, uint64_t key) {
  int best = 0;
  float bestValue = kNegativeInfinity;
  for (int i = 0; i < n; i++) {
    const float value = (x[i] - m) * inverseTemperature + gumbel(key, uint32_t(i));
    if (value > bestValue) { bestValue = value; best = i; }
  }
  return best;
}

template <WeightType type>
constexpr MatmulFn quantisedProduct() {
  if constexpr (isBlockQuantised(type)) return matmulQuantised<type>;
  else return nullptr;
}
template <WeightType... types>
constexpr Kernels tableOf(WeightTypes<types...>) {
  return {"scalar", {quantisedProduct<types>()...}, {matmulFloat<types>...},
          quantise, rmsNorm, layerNorm, attention<true>, attention<false>, rope, siluMul, gelu, geluMul, softCap, scale,
          addScaled, add, storeF16, maximum, sumExp, firstAbove, gumbelArgmax};
}

}  // namespace

const Kernels& reference() {
  static constexpr Kernels table = tableOf(AllWeightTypes{});
  return table;
}

}  // namespace outrider
