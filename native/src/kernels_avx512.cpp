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

// 16 bits of each: `first` in the low half of a lane, `last` in the high half.
LANES_INLINE __m512i pairUp(__m512i first, __m512i last) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, first, _mm512_slli_epi32(last, 16));
}

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

// The same for every type over unpack.inl: bits are unpacked once for all rows, scales once for 256 inputs.
template <WeightType type, int rows>
[[gnu::noinline]] void blockTile(const MatmulArgs& a, int row, int tile) {
  constexpr int scalesPerBlock = blockInputs(type) / kBlock, quantBytes = lowBytes(type) + highBytes(type);
  constexpr bool minima = hasMinima(type), halfBlocks = hasHalfBlocks(type);
  constexpr int zero = unpackedZero(type), tileBlockBytes = int(blockBytes(type)) * kLanes;
  const int blocks = a.k / kBlock;
  const uint8_t* x[rows];
  __m512 y[rows];
  for (int r = 0; r < rows; r++) {
    x[r] = static_cast<const uint8_t*>(a.x) + size_t(row + r) * a.xStride;
    y[r] = _mm512_setzero_ps();
  }
  const uint8_t* block = a.weights + size_t(tile) * tileBytes(type, a.k);
  const size_t scalesAt = size_t(a.k), scaledSumsAt = scalesAt + size_t(blocks) * 4, sumsAt = scaledSumsAt + size_t(blocks) * 4;
  const size_t halfSumsAt = sumsAt + size_t(blocks) * 4;
  UnpackedScales scales;
  for (int first = 0; first < blocks; first += scalesPerBlock, block += tileBlockBytes) {
    for (int line = 0; line < quantsOffset(type); line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(block + kPrefetchBytes + line), _MM_HINT_T0);
    unpackScales<type>(block, scales);
    const uint8_t* quants = block + quantsOffset(type);
    for (int s = 0; s < scalesPerBlock; s++, quants += quantBytes) {
      for (int line = 0; line < quantBytes; line += 64)
        _mm_prefetch(reinterpret_cast<const char*>(quants + kPrefetchBytes + line), _MM_HINT_T0);
      const int b = first + s;
      Part w[8];
      unpack<type, Part>(quants, w);
      __m512i acc[rows];
      if constexpr (!halfBlocks) {
        for (int r = 0; r < rows; r++)
          acc[r] = zero == 0 ? _mm512_setzero_si512()
                             : _mm512_mullo_epi32(broadcastWord(x[r] + sumsAt + size_t(b) * 4), _mm512_set1_epi32(-zero));
        for (int g = 0; g < 8; g++)
          for (int r = 0; r < rows; r++)
            acc[r] = _mm512_dpbusd_epi32(acc[r], w[g].v, broadcastWord(x[r] + size_t(b) * kBlock + 4 * g));
      } else {
        // Halves of 16 bits with the sums of both 16 inputs: what the zero points take away.
        const __m512i first16 = loadInt(scales.sub + kLanes * 2 * s).v, last16 = loadInt(scales.sub + kLanes * (2 * s + 1)).v;
        for (int r = 0; r < rows; r++) acc[r] = _mm512_setzero_si512();
        for (int g = 0; g < 4; g++)
          for (int r = 0; r < rows; r++)
            acc[r] = _mm512_dpbusd_epi32(acc[r], w[g].v, broadcastWord(x[r] + size_t(b) * kBlock + 4 * g));
        __m512i last[rows];
        for (int r = 0; r < rows; r++) {
          acc[r] = _mm512_mullo_epi32(acc[r], first16);
          last[r] = _mm512_setzero_si512();
        }
        for (int g = 4; g < 8; g++)
          for (int r = 0; r < rows; r++)
            last[r] = _mm512_dpbusd_epi32(last[r], w[g].v, broadcastWord(x[r] + size_t(b) * kBlock + 4 * g));
        if constexpr (zero != 0) {
          const __m512i pairs = pairUp(_mm512_mullo_epi32(first16, _mm512_set1_epi32(-zero)),
                                       _mm512_mullo_epi32(last16, _mm512_set1_epi32(-zero)));
          for (int r = 0; r < rows; r++)
            acc[r] = _mm512_dpwssd_epi32(acc[r], pairs, broadcastWord(x[r] + halfSumsAt + size_t(b) * 4));
        }
        for (int r = 0; r < rows; r++) acc[r] = _mm512_add_epi32(acc[r], _mm512_mullo_epi32(last[r], last16));
      }
      const __m512 d = load(scales.d + (halfBlocks ? 0 : kLanes * s)).v;
      for (int r = 0; r < rows; r++)
        y[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r]), _mm512_mul_ps(d, broadcastFloat(x[r] + scalesAt + size_t(b) * 4)), y[r]);
      if constexpr (minima && !halfBlocks) {
        const __m512 m = load(scales.m + kLanes * s).v;
        for (int r = 0; r < rows; r++) y[r] = _mm512_fmadd_ps(m, broadcastFloat(x[r] + scaledSumsAt + size_t(b) * 4), y[r]);
      } else if constexpr (minima) {
        const __m512 m = load(scales.m).v;
        const __m512i pairs = pairUp(loadInt(scales.minima + kLanes * 2 * s).v, loadInt(scales.minima + kLanes * (2 * s + 1)).v);
        for (int r = 0; r < rows; r++) {
          const __m512i n = _mm512_madd_epi16(pairs, broadcastWord(x[r] + halfSumsAt + size_t(b) * 4));
          const __m512 t = _mm512_mul_ps(m, broadcastFloat(x[r] + scalesAt + size_t(b) * 4));
          y[r] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(n), t, y[r]);
        }
      }
    }
  }
  for (int r = 0; r < rows; r++) finish(a, row + r, tile, {y[r]});
}

constexpr int kRowTile = 8;

// Zen 4, one core, 64 rows: 163 (Q4_1) to 175 GMAC/s (Q8_0) of 236 that bare dpbusd reach; with the float operations of
// a Q4_1 block on the same pipes 172 are possible. Tiles of 4, 5, 6 and 12 rows gave 154 to 175.
template <WeightType type>
void matmulQuantised(const MatmulArgs& a) {
  forEachPiece<kRowTile>(a, [&](auto constant, int row, int tile) {
    constexpr int rows = decltype(constant)::value;
    if constexpr (type == WeightType::Q4_0 || type == WeightType::Q4_1 || type == WeightType::Q8_0) quantisedTile<type, rows>(a, row, tile);
    else blockTile<type, rows>(a, row, tile);
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
