// AVX-512 with VNNI. The quantised products are exact integer sums of `dpbusd` (unsigned weight * signed activation,
// four at a time) over 16 columns, one float conversion and one or two multiply-adds a block.
#include "kernels.h"
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#include "lanes.h"

namespace outrider {
namespace {

#include "kernels.inl"

// Fewer hide less of memory's latency, more are lost at the end of small matrices.
constexpr int kPrefetchBytes = 6400;

LANES_INLINE __m512i broadcastWord(const uint8_t* p) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }
LANES_INLINE __m512 broadcastFloat(const uint8_t* p) { return _mm512_set1_ps(*reinterpret_cast<const float*>(p)); }

// 16 bits of each: `first` in the low half of a lane, `last` in the high half.
LANES_INLINE __m512i pairUp(__m512i first, __m512i last) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, first, _mm512_slli_epi32(last, 16));
}

// Where several pieces of rows go past a tile, the first reads it from memory and the others wait for nothing. So each
// fetches its share of the next tile, evenly over its own blocks, and memory works all the time.
struct NextTile {
  const uint8_t* at;
  size_t step;
  LANES_INLINE NextTile(const uint8_t* tile, size_t bytes, int part, int parts, int steps)
      : at(tile + bytes * size_t(part) / size_t(parts)), step(bytes / size_t(parts * steps) + 1) {}
  LANES_INLINE void fetch() {
    fetchNear(at, step);
    at += step;
  }
};

// How weights are fetched: as they come, past the outer caches or not, or as the next tile's share (NextTile). Decided
// outside the loop, where it costs four rows a twentieth.
enum class Fetch { Once, Near, Shared };

// One tile or a pair at once. A pair shares the loads of the activations, which keep the load ports as busy as the
// products keep theirs, and few rows get enough sums that do not wait for each other.
template <WeightType type, int rows, int tiles, Fetch fetch>
[[gnu::noinline]] void quantisedTiles(const MatmulArgs& a, int row, int tile, int part, int parts) {
  constexpr int quantBytes = type == WeightType::Q8_0 ? 512 : 256, blockBytes = int(tileBytes(type, kBlock));
  constexpr int zeroShift = type == WeightType::Q8_0 ? 7 : 3;  // the weights' zero point is 128 or 8
  constexpr int chains = rows * tiles < 4 ? 2 : 1;             // sums that a dot product of a block is cut into
  const int blocks = a.k / kBlock;
  const uint8_t* x[rows];
  __m512 y[tiles][rows];
  for (int r = 0; r < rows; r++) {
    x[r] = static_cast<const uint8_t*>(a.x) + size_t(row + r) * a.xStride;
    for (int t = 0; t < tiles; t++) y[t][r] = _mm512_setzero_ps();
  }
  const TileBlocks at = tileBlocks(type, a.weights, a.k, a.paired, tile);
  const uint8_t* block = at.first;
  const size_t scalesAt = size_t(a.k), scaledSumsAt = scalesAt + size_t(blocks) * 4, sumsAt = scaledSumsAt + size_t(blocks) * 4;
  NextTile next(block + size_t(blocks) * at.step, size_t(blocks) * at.step, part, parts, blocks);
  for (int b = 0; b < blocks; b++, block += at.step) {
    if constexpr (fetch == Fetch::Shared) next.fetch();
    else fetchWeights(fetch == Fetch::Once, block + kPrefetchBytes, size_t(tiles * blockBytes));
    __m512i acc[tiles][rows][chains];
    for (int t = 0; t < tiles; t++)
      for (int r = 0; r < rows; r++) {
        for (int c = 0; c < chains; c++) acc[t][r][c] = _mm512_setzero_si512();
        if constexpr (type != WeightType::Q4_1)
          acc[t][r][0] = _mm512_sub_epi32(acc[t][r][0], _mm512_slli_epi32(broadcastWord(x[r] + sumsAt + size_t(b) * 4), zeroShift));
      }
    // Row after row within each step, or one row's eight steps would wait for each other (2 rows: 87 -> 126 GMAC/s).
    const auto step = [&](const __m512i (&w)[tiles], int g) __attribute__((always_inline)) {
      for (int r = 0; r < rows; r++) {
        const __m512i quad = broadcastWord(x[r] + size_t(b) * kBlock + 4 * g);
        for (int t = 0; t < tiles; t++) acc[t][r][g % chains] = _mm512_dpbusd_epi32(acc[t][r][g % chains], w[t], quad);
      }
    };
    __m512i w[tiles];
    if constexpr (type == WeightType::Q8_0) {
#pragma GCC unroll 8
      for (int g = 0; g < 8; g++) {
        for (int t = 0; t < tiles; t++) w[t] = _mm512_loadu_si512(block + t * blockBytes + 64 * g);
        step(w, g);
      }
    } else {
      const __m512i nibble = _mm512_set1_epi8(15);
#pragma GCC unroll 4
      for (int g = 0; g < 4; g++) {
        __m512i both[tiles];
        for (int t = 0; t < tiles; t++) {
          both[t] = _mm512_loadu_si512(block + t * blockBytes + 64 * g);
          w[t] = _mm512_and_si512(both[t], nibble);
        }
        step(w, g);
        for (int t = 0; t < tiles; t++) w[t] = _mm512_and_si512(_mm512_srli_epi16(both[t], 4), nibble);
        step(w, g + 4);
      }
    }
    for (int t = 0; t < tiles; t++) {
      const uint8_t* halves = block + t * blockBytes + quantBytes;
      const __m512 d = loadHalf(halves).v;
      const __m512 m = type == WeightType::Q4_1 ? loadHalf(halves + 32).v : d;
      for (int r = 0; r < rows; r++) {
        const uint8_t* ofBlock = x[r] + size_t(b) * 4;
        __m512i sum = acc[t][r][0];
        for (int c = 1; c < chains; c++) sum = _mm512_add_epi32(sum, acc[t][r][c]);
        y[t][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(d, broadcastFloat(ofBlock + scalesAt)), y[t][r]);
        if constexpr (type == WeightType::Q4_1) y[t][r] = _mm512_fmadd_ps(m, broadcastFloat(ofBlock + scaledSumsAt), y[t][r]);
      }
    }
  }
  for (int t = 0; t < tiles; t++)
    for (int r = 0; r < rows; r++) finish(a, row + r, tile + t, {y[t][r]});
}

// The same for every type over unpack.inl: bits are unpacked once for all rows, scales once for 256 inputs.
template <WeightType type, int rows>
[[gnu::noinline]] void blockTile(const MatmulArgs& a, int row, int tile) {
  constexpr int scalesPerBlock = blockInputs(type) / kBlock, quantBytes = lowBytes(type) + highBytes(type);
  constexpr bool minima = hasMinima(type), halfBlocks = hasHalfBlocks(type);
  constexpr int zero = unpackedZero(type);
  const int blocks = a.k / kBlock;
  const uint8_t* x[rows];
  __m512 y[rows];
  for (int r = 0; r < rows; r++) {
    x[r] = static_cast<const uint8_t*>(a.x) + size_t(row + r) * a.xStride;
    y[r] = _mm512_setzero_ps();
  }
  const TileBlocks at = tileBlocks(type, a.weights, a.k, a.paired, tile);
  const uint8_t* block = at.first;
  const bool once = rows == 1 && a.rows == 1 && a.streamed;
  const size_t scalesAt = size_t(a.k), scaledSumsAt = scalesAt + size_t(blocks) * 4, sumsAt = scaledSumsAt + size_t(blocks) * 4;
  const size_t halfSumsAt = sumsAt + size_t(blocks) * 4;
  UnpackedScales scales;
  for (int first = 0; first < blocks; first += scalesPerBlock, block += at.step) {
    fetchWeights(once, block + kPrefetchBytes, size_t(quantsOffset(type)));
    unpackScales<type>(block, scales);
    const uint8_t* quants = block + quantsOffset(type);
    for (int s = 0; s < scalesPerBlock; s++, quants += quantBytes) {
      fetchWeights(once, quants + kPrefetchBytes, size_t(quantBytes));
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

// Two tiles of six rows and their sums fill the registers.
constexpr int kRowTile = 6;

template <WeightType type>
void matmulQuantised(const MatmulArgs& a) {
  if constexpr (pairs(type))
    forEachPiece<kRowTile, 2>(a, [&](auto rowCount, auto tileCount, int row, int tile, int part, int parts) {
      constexpr int rows = decltype(rowCount)::value, tiles = decltype(tileCount)::value;
      if constexpr (rows >= kRowTile / 2) {
        if (parts > 1) return quantisedTiles<type, rows, tiles, Fetch::Shared>(a, row, tile, part, parts);
      }
      if (a.streamed && rows == a.rows) return quantisedTiles<type, rows, tiles, Fetch::Once>(a, row, tile, part, parts);
      quantisedTiles<type, rows, tiles, Fetch::Near>(a, row, tile, part, parts);
    });
  else
    forEachPiece<8, 1>(a, [&](auto rows, auto, int row, int tile, int, int) { blockTile<type, decltype(rows)::value>(a, row, tile); });
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
