#include "quantise.h"

#include <algorithm>
#include <string>
#include <vector>

#include "error.h"
#include "numbers.h"

namespace outrider {
namespace {

constexpr uint16_t kHalfNaN = 0x7e00;
constexpr float kMostHalf = 65504.0f;

// Half away from zero. x - trunc(x) is exact, so unlike trunc(x + 0.5) this is right for 0.49999997 too.
[[gnu::always_inline]] inline int roundAway(float x) {
  const int whole = int(x);
  const float rest = x - float(whole);
  return whole + int(rest >= 0.5f) - int(rest <= -0.5f);
}

[[gnu::always_inline]] inline void store16(uint8_t* out, uint16_t v) { std::memcpy(out, &v, 2); }

[[gnu::always_inline]] inline void toFloat(WeightType type, const uint8_t* in, int k, float* x) {
  if (type == WeightType::F32) {
    std::memcpy(x, in, size_t(k) * 4);
    return;
  }
  for (int i = 0; i < k; i++) {
    uint16_t v;
    std::memcpy(&v, in + 2 * size_t(i), 2);
    x[i] = type == WeightType::F16 ? halfToFloat(v) : bfloatToFloat(v);
  }
}

[[gnu::always_inline]] inline void q8_0(const float* x, int blocks, uint8_t* out) {
  for (int b = 0; b < blocks; b++, x += kBlock, out += 34) {
    // As bits, where |x| orders like an integer and NaN is above infinity.
    uint32_t most = 0;
    for (int i = 0; i < kBlock; i++) most = std::max(most, floatToBits(x[i]) & 0x7fffffffu);
    const float d = bitsToFloat(most) / 127.0f;
    if (!(d <= kMostHalf)) {
      store16(out, kHalfNaN);
      std::memset(out + 2, 1, kBlock);
      continue;
    }
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    store16(out, floatToHalf(d));
    // 1 / d is infinite for a subnormal d; ggml's product with 0 is NaN then. Such weights are zero for all purposes.
    if (!(inverse <= 0x1.fffffep127f)) {
      std::memset(out + 2, 0, kBlock);
      continue;
    }
    for (int i = 0; i < kBlock; i++) out[2 + i] = uint8_t(int8_t(roundAway(x[i] * inverse)));
  }
}

[[gnu::always_inline]] inline void q4_1(const float* x, int blocks, uint8_t* out) {
  for (int b = 0; b < blocks; b++, x += kBlock, out += 20) {
    float least = x[0], most = x[0];
    uint32_t magnitude = 0;
    for (int i = 0; i < kBlock; i++) {
      least = x[i] < least ? x[i] : least;
      most = x[i] > most ? x[i] : most;
      magnitude = std::max(magnitude, floatToBits(x[i]) & 0x7fffffffu);
    }
    const float d = (most - least) / 15.0f;
    if (magnitude >= 0x7f800000u || !(d <= kMostHalf) || !(bitsToFloat(magnitude) <= kMostHalf)) {
      store16(out, kHalfNaN);
      store16(out + 2, 0);
      std::memset(out + 4, 0x11, 16);
      continue;
    }
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    store16(out, floatToHalf(d));
    store16(out + 2, floatToHalf(least));
    if (!(inverse <= 0x1.fffffep127f)) {
      std::memset(out + 4, 0, 16);
      continue;
    }
    uint8_t q[kBlock];
    for (int i = 0; i < kBlock; i++) q[i] = uint8_t(std::min(15, int((x[i] - least) * inverse + 0.5f)));
    for (int i = 0; i < 16; i++) out[4 + i] = uint8_t(q[i] | q[i + 16] << 4);
  }
}

[[gnu::always_inline]] inline void quantiseRow(WeightType from, WeightType to, const uint8_t* in, int k, float* x, uint8_t* out) {
  toFloat(from, in, k, x);
  if (to == WeightType::Q8_0) q8_0(x, k / kBlock, out);
  else q4_1(x, k / kBlock, out);
}

using RowFn = void (*)(WeightType from, WeightType to, const uint8_t* in, int k, float* x, uint8_t* out);
void quantiseRowPlain(WeightType from, WeightType to, const uint8_t* in, int k, float* x, uint8_t* out) {
  quantiseRow(from, to, in, k, x, out);
}

// The same code for wider registers: maxima and minima have no order, everything else is one weight by itself.
#if defined(__x86_64__) && defined(__GNUC__)
[[gnu::target("avx2")]] void quantiseRowAvx2(WeightType from, WeightType to, const uint8_t* in, int k, float* x, uint8_t* out) {
  quantiseRow(from, to, in, k, x, out);
}
RowFn rowFunction() { return __builtin_cpu_supports("avx2") ? quantiseRowAvx2 : quantiseRowPlain; }
#else
RowFn rowFunction() { return quantiseRowPlain; }
#endif

}  // namespace

void quantiseRows(Weight& weight, int from, const uint8_t* bytes, size_t size, int64_t first) {
  const auto type = WeightType(from);
  const bool floats = type == WeightType::F32 || type == WeightType::F16 || type == WeightType::BF16;
  if (!floats || (weight.type != WeightType::Q8_0 && weight.type != WeightType::Q4_1))
    throw programError("quantise: rows of type " + std::to_string(from) + " cannot become weight type " +
                       std::to_string(int(weight.type)));
  const int k = weight.k;
  const size_t rowBytes = size_t(k) * (type == WeightType::F32 ? 4 : 2);
  const int64_t count = int64_t(size / rowBytes);
  if (size % rowBytes != 0 || first < 0 || count > weight.rows - first)
    throw programError("quantise: " + std::to_string(size) + " bytes from row " + std::to_string(first) + " do not fit " +
                       std::to_string(weight.rows) + " rows of " + std::to_string(rowBytes) + " bytes");
  const RowFn quantise = rowFunction();
  // As many rows as are packed at once; they stay in the processor's own cache between the two steps.
  std::vector<float> row(static_cast<size_t>(k));
  std::vector<uint8_t> blocks(kLanes * weight.fileRowBytes());
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t some = std::min(int64_t(kLanes), count - i);
    for (int64_t r = 0; r < some; r++)
      quantise(type, weight.type, bytes + size_t(i + r) * rowBytes, k, row.data(), blocks.data() + size_t(r) * weight.fileRowBytes());
    weight.pack(blocks.data(), size_t(some) * weight.fileRowBytes(), first + i);
  }
}

}  // namespace outrider
