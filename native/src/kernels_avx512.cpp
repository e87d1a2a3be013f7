// AVX-512 with VNNI. The quantised products are exact integer sums of `dpbusd` (unsigned weight * signed activation,
// four at a time) over 16 columns, one float conversion and one or two multiply-adds a block.
#include "kernels.h"
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#include "lanes.h"

namespace outrider {
namespace {

#include "kernels.inl"

constexpr int kPrefetchBytes = 3072;

LANES_INLINE __m512i broadcastWord(const uint8_t* p) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }
LANES_INLINE __m512 broadcastFloat(const uint8_t* p) { return _mm512_set1_ps(*reinterpret_cast<const float*>(p)); }

template <WeightType type, int rows>
[[gnu::noinline]] void quantisedTile(const MatmulArgs& a, int row, int tile) {
  constexpr int quantBytes = type == WeightType::Q8_0 ? 512 : 256, blockBytes = int(tileBytes(type, kBlock));
  constexpr int zeroShift = type == WeightType::Q8_0 ? 7 : 3;  // the weights' zero point is 128 or 8
  const int blocks = a.k / kBlock;
  const uint8_t* x[rows];
  __m512 y[rows];
  for (int r = 0; r < rows; r++) {
    x[r] = static_cast<const uint8_t*>(a.x) + size_t(row + r) * a.xStride;
    y[r] = _mm512_setzero_ps();
  }
  const uint8_t* block = a.weights + size_t(tile) * tileBytes(type, a.k);
  const size_t scalesAt = size_t(a.k), scaledSumsAt = scalesAt + size_t(blocks) * 4, sumsAt = scaledSumsAt + size_t(blocks) * 4;
  for (int b = 0; b < blocks; b++, block += blockBytes) {
    for (int line = 0; line < blockBytes; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(block + kPrefetchBytes + line), _MM_HINT_T0);
    __m512i w[8];
    if constexpr (type == WeightType::Q8_0) {
      for (int g = 0; g < 8; g++) w[g] = _mm512_loadu_si512(block + 64 * g);
    } else {
      const __m512i nibble = _mm512_set1_epi8(15);
      for (int g = 0; g < 4; g++) {
        const __m512i both = _mm512_loadu_si512(block + 64 * g);
        w[g] = _mm512_and_si512(both, nibble);
        w[g + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
      }
    }
    const __m512 d = loadHalf(block + quantBytes).v;
    const __m512 m = type == WeightType::Q4_1 ? loadHalf(block + quantBytes + 32).v : d;
    // Row after row within each step, or one row's eight steps would wait for each other (2 rows: 87 -> 126 GMAC/s).
    __m512i acc[rows];
    for (int r = 0; r < rows; r++) {
      acc[r] = _mm512_setzero_si512();
      if constexpr (type != WeightType::Q4_1)
        acc[r] = _mm512_sub_epi32(acc[r], _mm512_slli_epi32(broadcastWord(x[r] + sumsAt + size_t(b) * 4), zeroShift));
    }
    for (int g = 0; g < 8; g++)
      for (int r = 0; r < rows; r++)
        acc[r] = _mm512_dpbusd_epi32(acc[r], w[g], broadcastWord(x[r] + size_t(b) * kBlock + 4 * g));
    for (int r = 0; r < rows; r++) {
      const uint8_t* ofBlock = x[r] + size_t(b) * 4;
      y[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r]), _mm512_mul_ps(d, broadcastFloat(ofBlock + scalesAt)), y[r]);
      if constexpr (type == WeightType::Q4_1) y[r] = _mm512_fmadd_ps(m, broadcastFloat(ofBlock + scaledSumsAt), y[r]);
    }
  }
  for (int r = 0; r < rows; r++) finish(a, row + r, tile, {y[r]});
}

constexpr int kRowTile = 8;

// A tile's weights stay in the first cache while the rows stream past it. Zen 4, one core, 64 rows: 163 (Q4_1) to 175
// GMAC/s (Q8_0) of 236 that bare dpbusd reach; with the float operations of a Q4_1 block on the same pipes 172 are
// possible. Tiles of 4, 5, 6 and 12 rows gave 154 to 175.
template <WeightType type>
void matmulQuantised(const MatmulArgs& a) {
  if constexpr (type != WeightType::Q4_0 && type != WeightType::Q4_1 && type != WeightType::Q8_0) return reference().matmulQuantised[typeIndex(type)](a);
  for (int tile = a.tileBegin; tile < a.tileEnd; tile++)
    for (int row = 0; row < a.rows; row += kRowTile)
      withConstant<kRowTile>(smaller(kRowTile, a.rows - row), [&](auto constant) {
        quantisedTile<type, decltype(constant)::value>(a, row, tile);
      });
}

}  // namespace

const Kernels* avx512() {
  static constexpr Kernels table = kernelTable("avx512", AllWeightTypes{});
  return &table;
}

}  // namespace outrider
#else
namespace outrider {
const Kernels* avx512() { return nullptr; }
}  // namespace outrider
#endif
