// AVX-512 with VNNI. The quantised products are exact integer sums of `dpbusd` (unsigned weight * signed activation,
// four at a time) over 16 columns, one float conversion and one or two multiply-adds a block.
#include "kernels.h"
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#include "lanes.h"

namespace outrider {
namespace {

#include "kernels.inl"

constexpr int kPrefetchBytes = 3072;

template <WeightType type, int rows>
void quantisedTile(const MatmulArgs& a, int row, int tile) {
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
    for (int r = 0; r < rows; r++) {
      const uint8_t* quads = x[r] + size_t(b) * kBlock;
      const uint8_t* ofBlock = x[r] + size_t(b) * 4;
      __m512i acc = _mm512_setzero_si512();
      if constexpr (type != WeightType::Q4_1) {
        const __m512i sum = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(ofBlock + sumsAt));
        acc = _mm512_sub_epi32(acc, _mm512_slli_epi32(sum, zeroShift));
      }
      for (int g = 0; g < 8; g++)
        acc = _mm512_dpbusd_epi32(acc, w[g], _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(quads + 4 * g)));
      const __m512 scale = _mm512_set1_ps(*reinterpret_cast<const float*>(ofBlock + scalesAt));
      y[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc), _mm512_mul_ps(d, scale), y[r]);
      if constexpr (type == WeightType::Q4_1)
        y[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(*reinterpret_cast<const float*>(ofBlock + scaledSumsAt)), y[r]);
    }
  }
  for (int r = 0; r < rows; r++) finish(a, row + r, tile, {y[r]});
}

#ifndef ROW_TILE
#define ROW_TILE 8
#endif
constexpr int kRowTile = ROW_TILE;

// A tile's weights stay in the first cache while the rows stream past it.
template <WeightType type>
void matmulQuantised(const MatmulArgs& a) {
  for (int tile = a.tileBegin; tile < a.tileEnd; tile++)
    for (int row = 0; row < a.rows; row += kRowTile)
      withConstant<kRowTile>(smaller(kRowTile, a.rows - row), [&](auto constant) {
        quantisedTile<type, decltype(constant)::value>(a, row, tile);
      });
}

}  // namespace

const Kernels* avx512() {
  static constexpr Kernels table = kernelTable("avx512", matmulQuantised<WeightType::Q4_0>, matmulQuantised<WeightType::Q4_1>,
                                               matmulQuantised<WeightType::Q8_0>);
  return &table;
}

}  // namespace outrider
#else
namespace outrider {
const Kernels* avx512() { return nullptr; }
}  // namespace outrider
#endif
