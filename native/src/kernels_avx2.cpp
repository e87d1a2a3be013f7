// AVX2 without VNNI. 16-bit sums of products from `maddubs` (unsigned * signed bytes, pairs added) must not saturate:
//   4-bit weights: a pair is at most 2 * 15 * 127 = 3810, eight of them fit, so a block takes one widening `madd`;
//   8-bit weights: |w| * (x with the sign of w), a pair is at most 2 * 128 * 127 = 32512, each is widened at once.
#include "kernels.h"
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "lanes.h"

namespace outrider {
namespace {

#include "kernels.inl"

constexpr int kPrefetchBytes = 3072;

LANES_INLINE __m256i broadcastQuad(const uint8_t* p) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }
LANES_INLINE __m256 broadcastFloat(const uint8_t* p) { return _mm256_set1_ps(*reinterpret_cast<const float*>(p)); }

// One tile or a pair, whose blocks alternate.
template <WeightType type, int rows, int tiles>
[[gnu::noinline]] void quantisedTiles(const MatmulArgs& a, int row, int tile) {
  constexpr int quantBytes = type == WeightType::Q8_0 ? 512 : 256, blockBytes = int(tileBytes(type, kBlock));
  const int blocks = a.k / kBlock;
  const bool once = rows == 1 && a.rows == 1 && a.streamed;
  const __m256i ones = _mm256_set1_epi16(1);
  const uint8_t* x[rows];
  __m256 y[tiles][rows][2];
  for (int r = 0; r < rows; r++) {
    x[r] = static_cast<const uint8_t*>(a.x) + size_t(row + r) * a.xStride;
    for (int t = 0; t < tiles; t++) y[t][r][0] = y[t][r][1] = _mm256_setzero_ps();
  }
  const TileBlocks at = tileBlocks(type, a.weights, a.k, a.paired, tile);
  const uint8_t* blockPair = at.first;
  const size_t scalesAt = size_t(a.k), scaledSumsAt = scalesAt + size_t(blocks) * 4, sumsAt = scaledSumsAt + size_t(blocks) * 4;
  for (int b = 0; b < blocks; b++, blockPair += at.step) {
    fetchWeights(once, blockPair + kPrefetchBytes, size_t(tiles * blockBytes));
    for (int part = 0; part < 2 * tiles; part++) {  // 8 columns
      const int half = part % 2;
      const uint8_t* block = blockPair + part / 2 * blockBytes;
      // Hides that both halves read the same activations: the compiler would load them all ahead of the loop and
      // spill them (8 rows: 70 GMAC/s instead of 96).
      size_t place = size_t(b);
      asm volatile("" : "+r"(place));
      __m256i w[8];
      if constexpr (type == WeightType::Q8_0) {
        for (int g = 0; g < 8; g++)
          w[g] = _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 64 * g + 32 * half)),
                                  _mm256_set1_epi8(-128));
      } else {
        const __m256i nibble = _mm256_set1_epi8(15);
        for (int g = 0; g < 4; g++) {
          const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 64 * g + 32 * half));
          w[g] = _mm256_and_si256(both, nibble);
          w[g + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
        }
      }
      const __m128i* halves = reinterpret_cast<const __m128i*>(block + quantBytes + 16 * half);
      const __m256 d = _mm256_cvtph_ps(_mm_loadu_si128(halves));
      const __m256 m = type == WeightType::Q4_1 ? _mm256_cvtph_ps(_mm_loadu_si128(halves + 2)) : d;
      for (int r = 0; r < rows; r++) {
        const uint8_t* quads = x[r] + place * kBlock;
        const uint8_t* ofBlock = x[r] + place * 4;
        __m256i acc;
        if constexpr (type == WeightType::Q8_0) {
          acc = _mm256_setzero_si256();
          for (int g = 0; g < 8; g++) {
            const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w[g]), _mm256_sign_epi8(broadcastQuad(quads + 4 * g), w[g]));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, ones));
          }
        } else {
          __m256i pairs = _mm256_maddubs_epi16(w[0], broadcastQuad(quads));
          for (int g = 1; g < 8; g++) pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[g], broadcastQuad(quads + 4 * g)));
          acc = _mm256_madd_epi16(pairs, ones);
          if constexpr (type == WeightType::Q4_0)
            acc = _mm256_sub_epi32(acc, _mm256_slli_epi32(broadcastQuad(ofBlock + sumsAt), 3));
        }
        __m256& sum = y[part / 2][r][half];
        sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc), _mm256_mul_ps(d, broadcastFloat(ofBlock + scalesAt)), sum);
        if constexpr (type == WeightType::Q4_1) sum = _mm256_fmadd_ps(m, broadcastFloat(ofBlock + scaledSumsAt), sum);
      }
    }
  }
  for (int t = 0; t < tiles; t++)
    for (int r = 0; r < rows; r++) finish(a, row + r, tile + t, {y[t][r][0], y[t][r][1]});
}

// acc += sum of w * x over `groups` groups of four inputs.
template <int most, int groups>
LANES_INLINE __m256i dot(__m256i acc, const Part* w, const uint8_t* quads) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (most > 127) {
    for (int g = 0; g < groups; g++) {
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w[g].v), _mm256_sign_epi8(broadcastQuad(quads + 4 * g), w[g].v));
      acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, ones));
    }
  } else {
    // So many products of two fit 16 bits.
    constexpr int run = smaller(groups, 32767 / (2 * 127 * most));
    for (int g = 0; g < groups; g += run) {
      __m256i pairs = _mm256_maddubs_epi16(w[g].v, broadcastQuad(quads + 4 * g));
      for (int i = 1; i < run; i++) pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[g + i].v, broadcastQuad(quads + 4 * (g + i))));
      acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, ones));
    }
  }
  return acc;
}

LANES_INLINE __m256i pairUp(__m256i first, __m256i last) {  // 16 bits of each: low and high half of a lane
  return _mm256_blend_epi16(first, _mm256_slli_epi32(last, 16), 0xaa);
}

// The same for every type over unpack.inl: bits are unpacked once for all rows, scales once for 256 inputs.
template <WeightType type, int rows>
[[gnu::noinline]] void blockTile(const MatmulArgs& a, int row, int tile) {
  constexpr int scalesPerBlock = blockInputs(type) / kBlock, quantBytes = lowBytes(type) + highBytes(type);
  constexpr bool minima = hasMinima(type), halfBlocks = hasHalfBlocks(type);
  constexpr int most = unpackedMost(type);
  constexpr int zero = most > 127 ? 0 : unpackedZero(type);  // larger bytes become signed, without a zero point
  const int blocks = a.k / kBlock;
  const bool once = rows == 1 && a.rows == 1 && a.streamed;
  const uint8_t* x[rows];
  __m256 y[rows][2];
  for (int r = 0; r < rows; r++) {
    x[r] = static_cast<const uint8_t*>(a.x) + size_t(row + r) * a.xStride;
    y[r][0] = y[r][1] = _mm256_setzero_ps();
  }
  const TileBlocks at = tileBlocks(type, a.weights, a.k, a.paired, tile);
  const uint8_t* block = at.first;
  const size_t scalesAt = size_t(a.k), scaledSumsAt = scalesAt + size_t(blocks) * 4, sumsAt = scaledSumsAt + size_t(blocks) * 4;
  const size_t halfSumsAt = sumsAt + size_t(blocks) * 4;
  const auto words = [](const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); };
  UnpackedScales scales;
  for (int first = 0; first < blocks; first += scalesPerBlock, block += at.step) {
    unpackScales<type>(block, scales);
    const uint8_t* quants = block + quantsOffset(type);
    for (int s = 0; s < scalesPerBlock; s++, quants += quantBytes) {
      fetchWeights(once, quants + kPrefetchBytes, size_t(quantBytes));
      for (int half = 0; half < 2; half++) {  // 8 of the 16 columns
        size_t place = size_t(first + s);
        asm volatile("" : "+r"(place));  // as in quantisedTiles
        Part w[8];
        unpack<type, Part>(quants + 32 * half, w);
        if constexpr (most > 127)
          for (int g = 0; g < 8; g++) w[g].v = _mm256_xor_si256(w[g].v, _mm256_set1_epi8(-128));
        const int column = 8 * half;
        const __m256 d = _mm256_loadu_ps(scales.d + (halfBlocks ? 0 : kLanes * s) + column);
        const __m256 m = minima ? _mm256_loadu_ps(scales.m + (halfBlocks ? 0 : kLanes * s) + column) : d;
        const __m256i first16 = halfBlocks ? words(scales.sub + kLanes * 2 * s + column) : _mm256_setzero_si256();
        const __m256i last16 = halfBlocks ? words(scales.sub + kLanes * (2 * s + 1) + column) : first16;
        const __m256i minus = _mm256_set1_epi32(-zero);
        const __m256i zeros = halfBlocks && zero != 0 ? pairUp(_mm256_mullo_epi32(first16, minus), _mm256_mullo_epi32(last16, minus)) : minus;
        const __m256i pairs = halfBlocks && minima ? pairUp(words(scales.minima + kLanes * 2 * s + column),
                                                            words(scales.minima + kLanes * (2 * s + 1) + column))
                                                   : minus;
        for (int r = 0; r < rows; r++) {
          const uint8_t* quads = x[r] + place * kBlock;
          const uint8_t* ofBlock = x[r] + place * 4;
          const __m256 scale = broadcastFloat(ofBlock + scalesAt);
          __m256& sum = y[r][half];
          if constexpr (halfBlocks) {
            __m256i acc = _mm256_mullo_epi32(dot<most, 4>(_mm256_setzero_si256(), w, quads), first16);
            acc = _mm256_add_epi32(acc, _mm256_mullo_epi32(dot<most, 4>(_mm256_setzero_si256(), w + 4, quads + 16), last16));
            const __m256i sums = broadcastQuad(ofBlock + halfSumsAt);
            if constexpr (zero != 0) acc = _mm256_add_epi32(acc, _mm256_madd_epi16(zeros, sums));
            sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc), _mm256_mul_ps(d, scale), sum);
            if constexpr (minima) {
              const __m256i n = _mm256_madd_epi16(pairs, sums);
              sum = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(n), _mm256_mul_ps(m, scale), sum);
            }
          } else {
            __m256i acc = _mm256_setzero_si256();
            if constexpr (zero != 0) acc = _mm256_mullo_epi32(broadcastQuad(ofBlock + sumsAt), minus);
            acc = dot<most, 8>(acc, w, quads);
            sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc), _mm256_mul_ps(d, scale), sum);
            if constexpr (minima) sum = _mm256_fmadd_ps(m, broadcastFloat(ofBlock + scaledSumsAt), sum);
          }
        }
      }
    }
  }
  for (int r = 0; r < rows; r++) finish(a, row + r, tile, {y[r][0], y[r][1]});
}

constexpr int kRowTile = 8;

// A tile's weights stay in the first cache while the rows stream past it.
template <WeightType type>
void matmulQuantised(const MatmulArgs& a) {
  forEachPiece<kRowTile, pairs(type) ? 2 : 1>(a, [&](auto rows, auto tiles, int row, int tile, int, int) {
    if constexpr (pairs(type)) quantisedTiles<type, decltype(rows)::value, decltype(tiles)::value>(a, row, tile);
    else blockTile<type, decltype(rows)::value>(a, row, tile);
  });
}

}  // namespace

const Kernels* avx2() {
  static constexpr Kernels table = kernelTable("avx2", AllWeightTypes{});
  return &table;
}

}  // namespace outrider
#else
namespace outrider {
const Kernels* avx2() { return nullptr; }
}  // namespace outrider
#endif
