// The definition of every operator in plain C++. Compiled for any processor of the platform; slow on purpose.
#include "kernels.h"
#include "numbers.h"

namespace outrider {
namespace {

constexpr float kNegativeInfinity = -__builtin_inff();

uint16_t read16(const uint8_t* p) { uint16_t v; std::memcpy(&v, p, 2); return v; }

// Integer weight of input i (0..31) of column c in one block of a tile.
int integerWeight(WeightType type, const uint8_t* block, int c, int i) {
  if (type == WeightType::Q8_0) return int(block[64 * (i / 4) + 4 * c + i % 4]) - 128;
  const int within = i % 16, byte = block[64 * (within / 4) + 4 * c + within % 4];
  const int q = i < 16 ? byte & 15 : byte >> 4;
  return type == WeightType::Q4_0 ? q - 8 : q;
}

template <WeightType type>
void matmulQuantised(const MatmulArgs& a) {
  constexpr size_t quantBytes = type == WeightType::Q8_0 ? 512 : 256;
  const size_t blockBytes = tileBytes(type, kBlock);
  for (int tile = a.tileBegin; tile < a.tileEnd; tile++)
    for (int r = 0; r < a.rows; r++) {
      const uint8_t* row = static_cast<const uint8_t*>(a.x) + size_t(r) * a.xStride;
      const int8_t* x = QuantisedRow::values(row);
      const float* scale = QuantisedRow::scales(row, a.k);
      const float* scaledSum = QuantisedRow::scaledSums(row, a.k);
      for (int c = 0; c < kLanes; c++) {
        float y = 0;
        for (int b = 0; b < a.k / kBlock; b++) {
          const uint8_t* block = a.weights + size_t(tile) * tileBytes(type, a.k) + size_t(b) * blockBytes;
          int acc = 0;
          for (int i = 0; i < kBlock; i++) acc += integerWeight(type, block, c, i) * x[b * kBlock + i];
          const float d = halfToFloat(read16(block + quantBytes + 2 * c));
          y = std::fma(float(acc), d * scale[b], y);
          if (type == WeightType::Q4_1) y = std::fma(halfToFloat(read16(block + quantBytes + 32 + 2 * c)), scaledSum[b], y);
        }
        float* out = a.out + size_t(r) * a.outStride + size_t(tile) * kLanes + c;
        *out = a.accumulate ? *out + y : y;
      }
    }
}

template <WeightType type>
float weightAt(const uint8_t* tile, int c, int i) {
  switch (type) {
    case WeightType::F32: { float f; std::memcpy(&f, tile + (size_t(i) * kLanes + c) * 4, 4); return f; }
    case WeightType::F16: return halfToFloat(read16(tile + (size_t(i) * kLanes + c) * 2));
    case WeightType::BF16: return bfloatToFloat(read16(tile + (size_t(i) * kLanes + c) * 2));
    default: break;
  }
  const uint8_t* block = tile + size_t(i / kBlock) * tileBytes(type, kBlock);
  const uint8_t* scales = block + (type == WeightType::Q8_0 ? 512 : 256);
  const float q = float(integerWeight(type, block, c, i % kBlock)), d = halfToFloat(read16(scales + 2 * c));
  return type == WeightType::Q4_1 ? std::fma(q, d, halfToFloat(read16(scales + 32 + 2 * c))) : q * d;
}

template <WeightType type>
void matmulFloat(const MatmulArgs& a) {
  for (int tile = a.tileBegin; tile < a.tileEnd; tile++)
    for (int r = 0; r < a.rows; r++) {
      const float* x = reinterpret_cast<const float*>(static_cast<const uint8_t*>(a.x) + size_t(r) * a.xStride);
      for (int c = 0; c < kLanes; c++) {
        float y = 0;
        for (int i = 0; i < a.k; i++) y = std::fma(weightAt<type>(a.weights + size_t(tile) * tileBytes(type, a.k), c, i), x[i], y);
        float* out = a.out + size_t(r) * a.outStride + size_t(tile) * kLanes + c;
        *out = a.accumulate ? *out + y : y;
      }
    }
}

void quantise(const float* x, int k, uint8_t* out) {
  int8_t* q = reinterpret_cast<int8_t*>(out);
  float* scale = reinterpret_cast<float*>(out + k);
  float* scaledSum = scale + k / kBlock;
  int32_t* sums = reinterpret_cast<int32_t*>(scaledSum + k / kBlock);
  for (int b = 0; b < k / kBlock; b++) {
    float largest = 0;
    for (int i = 0; i < kBlock; i++) largest = std::fmax(largest, std::fabs(x[b * kBlock + i]));
    const float inverse = largest > 0x1p-100f ? 127.0f / largest : 0.0f;
    int sum = 0;
    for (int i = 0; i < kBlock; i++) {
      // |x * inverse| <= 127.00001: the magic number rounds to even and the result fits int8.
      const float shifted = x[b * kBlock + i] * inverse + kRoundMagic;
      const int8_t value = int8_t(floatToBits(shifted) & 0xff);
      q[b * kBlock + i] = value;
      sum += value;
    }
    scale[b] = largest / 127.0f;
    scaledSum[b] = scale[b] * float(sum);
    sums[b] = sum;
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

}  // namespace

const Kernels& reference() {
  static const Kernels table = {
      "scalar",
      {matmulQuantised<WeightType::Q4_0>, matmulQuantised<WeightType::Q4_1>, matmulQuantised<WeightType::Q8_0>},
      {matmulFloat<WeightType::F32>, matmulFloat<WeightType::F16>, matmulFloat<WeightType::BF16>,
       matmulFloat<WeightType::Q4_0>, matmulFloat<WeightType::Q4_1>, matmulFloat<WeightType::Q8_0>},
      quantise, rmsNorm, layerNorm, attention<true>, attention<false>, rope, siluMul, gelu, geluMul, softCap, scale, addScaled,
      add, storeF16, maximum, sumExp, firstAbove, gumbelArgmax};
  return table;
}

}  // namespace outrider
