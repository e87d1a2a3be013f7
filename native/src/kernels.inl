// Every operator but the quantised matrix product, once, over the lanes of lanes.h. Each instruction set's file
// includes this inside its anonymous namespace; what the operators mean stands in kernels.h and reference.cpp.
// No function of std:: or of a header is called here that might be emitted with this file's instructions (lanes.h).

constexpr float kNegativeInfinity = -__builtin_inff();

constexpr int smaller(int a, int b) { return a < b ? a : b; }
constexpr int larger(int a, int b) { return a > b ? a : b; }

// Calls f(Constant<n>) for a run-time 1 <= n <= 8, so that loops over n rows or queries unroll into registers.
template <int n> struct Constant { static constexpr int value = n; };
template <int limit, class F>
LANES_INLINE void withConstant(int n, F f) {
  if (n == limit) return f(Constant<limit>{});
  if constexpr (limit > 1) withConstant<limit - 1>(n, f);
}

LANES_INLINE const float* rowAt(const MatmulArgs& a, int r) {
  return reinterpret_cast<const float*>(static_cast<const uint8_t*>(a.x) + size_t(r) * a.xStride);
}
LANES_INLINE void finish(const MatmulArgs& a, int row, int tile, Float y) {
  float* out = a.out + size_t(row) * a.outStride + size_t(tile - a.tileBegin) * kLanes;
  store(out, a.accumulate ? add(load(out), y) : y);
}

LANES_INLINE void fetchNear(const void* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(from) + i, 0, 3);
}
// For what is read once and comes from memory the next time anyway: the other caches keep what is used between passes.
LANES_INLINE void fetchOnce(const void* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(from) + i, 0, 0);
}
LANES_INLINE void fetchWeights(bool once, const void* from, size_t bytes) {
  if (once) fetchOnce(from, bytes);
  else fetchNear(from, bytes);
}

#include "unpack.inl"

template <WeightType type> void matmulQuantised(const MatmulArgs& a);  // of the including file

// piece(Constant<rows>, Constant<tiles>, row, tile, part, parts) for all of a product, `tiles` being 2 for a pair of
// tiles where `mostTiles` allows it, in pieces of up to `mostRows` rows, equally many: a tile's `part` of `parts`. Within a
// step of rows, a tile's weights stay in the first cache while the rows go past it.
template <int mostRows, int mostTiles, class F>
LANES_INLINE void forEachPiece(const MatmulArgs& a, F piece) {
  const int step = stepRows(a.xStride);
  for (int first = 0; first < a.rows; first += step) {
    const int end = smaller(a.rows, first + step);
    const int pieces = (end - first + mostRows - 1) / mostRows;
    const auto pieceBegin = [&](int i) { return first + (end - first) * i / pieces; };
    for (int tile = a.tileBegin; tile < a.tileEnd;) {
      const bool both = mostTiles == 2 && a.paired && tile % 2 == 0 && tile + 1 < a.tileEnd;
      for (int i = 0; i < pieces; i++) {
        const int row = pieceBegin(i);
        withConstant<mostRows>(pieceBegin(i + 1) - row, [&](auto rows) {
          if (both) piece(rows, Constant<mostTiles>{}, row, tile, i, pieces);
          else piece(rows, Constant<1>{}, row, tile, i, pieces);
        });
      }
      tile += both ? 2 : 1;
    }
  }
}

// Calls use(i, w) for the inputs i of these tiles in order; w[t] holds the 16 columns of tile t.
template <WeightType type, int tiles, class F>
LANES_INLINE void forEachInput(const TileBlocks (&tile)[tiles], int k, F use) {
  Float w[tiles];
  if constexpr (!isBlockQuantised(type)) {
    constexpr size_t inputBytes = type == WeightType::F32 ? 64 : 32;
    for (int i = 0; i < k; i++) {
      for (int t = 0; t < tiles; t++) {
        const uint8_t* p = tile[t].first + size_t(i) * inputBytes;
        if constexpr (type == WeightType::F32) w[t] = load(reinterpret_cast<const float*>(p));
        else if constexpr (type == WeightType::F16) w[t] = loadHalf(p);
        else w[t] = loadBfloat(p);
      }
      use(i, w);
    }
  } else {
    constexpr int blockSize = blockInputs(type), quantBytes = lowBytes(type) + highBytes(type);
    constexpr int perScale = hasHalfBlocks(type) ? 16 : 32;
    BlockScales scales[tiles];
    for (int i = 0; i < k; i += kBlock) {  // 32 inputs
      const auto block = [&](int t) __attribute__((always_inline)) { return tile[t].first + size_t(i / blockSize) * tile[t].step; };
      if (i % blockSize == 0)
        for (int t = 0; t < tiles; t++) blockScales<type>(block(t), scales[t]);
      Int groups[tiles][kBlock / 4];
      for (int t = 0; t < tiles; t++)
        unpack<type, Int>(block(t) + quantsOffset(type) + i % blockSize / kBlock * quantBytes, groups[t]);
      for (int j = 0; j < kBlock; j++) {
        const int s = (i % blockSize + j) / perScale;
        for (int t = 0; t < tiles; t++) {
          Int& group = groups[t][j / 4];
          const Float q = toFloat(sub(bitAnd(group, broadcastInt(255)), broadcastInt(unpackedZero(type))));
          if constexpr (hasMinima(type)) w[t] = fma(q, scales[t].d[s], scales[t].m[s]);
          else w[t] = mul(q, scales[t].d[s]);
          group = shiftRight<8>(group);  // four inputs lie in the bytes of one 32-bit lane
        }
        use(i + j, w);
      }
    }
  }
}

template <WeightType type, int rows, int tiles>
void floatTiles(const MatmulArgs& a, int row, int tile) {
  const float* x[rows];
  Float y[rows][tiles];
  for (int r = 0; r < rows; r++) {
    x[r] = rowAt(a, row + r);
    for (int t = 0; t < tiles; t++) y[r][t] = broadcast(0);
  }
  TileBlocks at[tiles];
  for (int t = 0; t < tiles; t++) at[t] = tileBlocks(type, a.weights, a.k, a.paired, tile + t);
  forEachInput<type, tiles>(at, a.k, [&](int i, const Float* w) __attribute__((always_inline)) {
    for (int r = 0; r < rows; r++)
      for (int t = 0; t < tiles; t++) y[r][t] = fma(w[t], broadcast(x[r][i]), y[r][t]);
  });
  for (int r = 0; r < rows; r++)
    for (int t = 0; t < tiles; t++) finish(a, row + r, tile + t, y[r][t]);
}

// A column's sum is one chain of multiply-adds, so few rows take several tiles at once to fill the pipeline; four
// registers of one tile are four chains already.
template <WeightType type>
void matmulFloat(const MatmulArgs& a) {
  constexpr int most = smaller(8, kAccumulators);
  for (int row = 0; row < a.rows; row += most)
    withConstant<most>(smaller(most, a.rows - row), [&](auto constant) {
      constexpr int rows = decltype(constant)::value, tiles = kParts == 4 ? 1 : larger(1, 4 / rows);
      int tile = a.tileBegin;
      for (; tile + tiles <= a.tileEnd; tile += tiles) floatTiles<type, rows, tiles>(a, row, tile);
      for (; tile < a.tileEnd; tile++) floatTiles<type, rows, 1>(a, row, tile);
    });
}

void quantise(const float* x, int k, int first, int n, uint8_t* out) {
  const int blocks = k / kBlock;
  int8_t* q = reinterpret_cast<int8_t*>(out);
  float* scale = reinterpret_cast<float*>(out + k);
  float* scaledSum = scale + blocks;
  int32_t* sums = reinterpret_cast<int32_t*>(scaledSum + blocks);
  int16_t* halfSums = reinterpret_cast<int16_t*>(sums + blocks);
  for (int b = first / kBlock; b < (first + n) / kBlock; b++, x += kBlock) {
    const Float v[2] = {load(x), load(x + kLanes)};
    // max(a, b) is b where a is NaN: a NaN does not become the largest, as with fmax.
    const float largest = reduceMax(max(absolute(v[1]), max(absolute(v[0]), broadcast(0))));
    const bool finite = reduceAdd(add(mul(v[0], broadcast(0)), mul(v[1], broadcast(0)))) == 0.0f;
    const float inverse = largest > 0x1p-100f ? 127.0f / largest : 0.0f;
    int32_t sum[2];
    for (int i = 0; i < 2; i++) {
      const Int bits = asBits(add(mul(v[i], broadcast(inverse)), broadcast(kRoundMagic)));
      storeBytes(q + b * kBlock + i * kLanes, bits);
      sum[i] = reduceAdd(shiftRightSigned<24>(shiftLeft<24>(bits)));
      halfSums[2 * b + i] = int16_t(sum[i]);
    }
    sums[b] = sum[0] + sum[1];
    scale[b] = finite ? largest / 127.0f : __builtin_nanf("");
    scaledSum[b] = finite ? scale[b] * float(sums[b]) : __builtin_nanf("");
  }
}

void rmsNorm(const float* x, const float* weight, int k, float eps, float* y) {
  Float squares = broadcast(0);
  int i = 0;
  for (; i + kLanes <= k; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
  if (i < k) {
    const Float v = loadPart(x + i, k - i);
    squares = fma(v, v, squares);  // + 0 in the other lanes changes no bit: sums of squares are not -0
  }
  const Float inverse = broadcast(1.0f / __builtin_sqrtf(reduceAdd(squares) / float(k) + eps));
  for (i = 0; i + kLanes <= k; i += kLanes) store(y + i, mul(mul(load(x + i), inverse), load(weight + i)));
  if (i < k) storePart(y + i, mul(mul(loadPart(x + i, k - i), inverse), loadPart(weight + i, k - i)), k - i);
}

void layerNorm(const float* x, const float* weight, const float* bias, int k, float eps, float* y) {
  const int whole = k / kLanes * kLanes, rest = k - whole;
  Float sum = broadcast(0), squares = broadcast(0);
  for (int i = 0; i < whole; i += kLanes) sum = add(sum, load(x + i));
  if (rest) sum = select(laneRange(0, rest), add(sum, loadPart(x + whole, rest)), sum);
  const Float mean = broadcast(reduceAdd(sum) / float(k));
  for (int i = 0; i < whole; i += kLanes) {
    const Float d = sub(load(x + i), mean);
    squares = fma(d, d, squares);
  }
  if (rest) {
    const Float d = sub(loadPart(x + whole, rest), mean);
    squares = select(laneRange(0, rest), fma(d, d, squares), squares);
  }
  const Float inverse = broadcast(1.0f / __builtin_sqrtf(reduceAdd(squares) / float(k) + eps));
  for (int i = 0; i < k; i += kLanes) {
    const int n = smaller(kLanes, k - i);
    const Float d = mul(sub(loadPart(x + i, n), mean), inverse);
    storePart(y + i, fma(d, loadPart(weight + i, n), loadPart(bias + i, n)), n);
  }
}

template <bool half>
LANES_INLINE Float loadCached(const void* block, size_t index) {
  if constexpr (half) return loadHalf(static_cast<const uint16_t*>(block) + index);
  else return load(static_cast<const float*>(block) + index);
}

LANES_INLINE Float capped(Float x, float cap) { return mul(tanh16(mul(x, broadcast(1.0f / cap))), broadcast(cap)); }

// Keys and values that are not in the caches are fetched a line or two with each step of the arithmetic, so far ahead, but at
// least as far as a group scores at once. More prefetches at once than about 16 lines are dropped (Zen 5,
// native/tests/attention_bench.cpp), and then memory idles while a core computes.
constexpr int kAheadBytes = 16 << 10, kFewestAhead = 4;
LANES_INLINE int blocksAhead(size_t blockBytes) {
  return larger(kFewestAhead, smaller(kMostAhead, int(kAheadBytes / blockBytes)));
}

// A group of queries, the `part` of `parts`: with a block it fetches the one that comes `ahead` blocks later, if that is its
// own. The values [firstBlock, lastBlock) follow the keys, the keys of the next call the values.
struct Group { int part, parts, firstBlock, lastBlock, ahead; };

// Scaled scores of `count` queries against `blocks` blocks; -infinity outside a query's positions, whatever lies there.
// coming: blocks to be fetched meanwhile.
// Not inlined: with what its caller keeps in registers the pointers to the queries would be spilled (8 queries: a tenth).
template <bool half, int count, int blocks, bool fetch>
[[gnu::noinline]] void scores(const AttentionArgs& a, int query, int block, float* const* p, const uint8_t* const* coming) {
  constexpr int lineInputs = half ? 2 : 1;  // inputs of the 16 positions in a line
  const float* q[count];
  Float s[count][blocks];
  for (int j = 0; j < count; j++) {
    q[j] = a.queries[query + j];
    for (int b = 0; b < blocks; b++) s[j][b] = broadcast(0);
  }
  const auto input = [&](int d) __attribute__((always_inline)) {
    Float key[blocks];
    for (int b = 0; b < blocks; b++) key[b] = loadCached<half>(a.keys[block + b], size_t(d) * kLanes);
    for (int j = 0; j < count; j++)
      for (int b = 0; b < blocks; b++) s[j][b] = fma(broadcast(q[j][d]), key[b], s[j][b]);
  };
  int d = 0;
  for (; d + lineInputs <= a.headDim; d += lineInputs) {
    if constexpr (fetch)
      for (int b = 0; b < blocks; b++) __builtin_prefetch(coming[b] + 64 / lineInputs * size_t(d));
    input(d);
    if constexpr (half) input(d + 1);
  }
  if (d < a.headDim) input(d);
  for (int j = 0; j < count; j++)
    for (int b = 0; b < blocks; b++) {
      const int position = (block + b) * kLanes;
      const Mask seen = laneRange(a.first[query + j] - position, a.end[query + j] - position);
      Float score = mul(s[j][b], broadcast(a.scale));
      if (a.softCap != 0) score = capped(score, a.softCap);
      store(p[query + j] + position, select(seen, score, broadcast(kNegativeInfinity)));
    }
}

// Where several groups of queries go past keys and values, they take turns at so many blocks at most, which stay in the first
// cache meanwhile: a group that reads from memory alone would wait for it.
constexpr int kStepBlocks = 8;

// Scores of a group of queries against the blocks [block, end).
template <bool half, int count>
void scoresOfStep(const AttentionArgs& a, int query, int block, int end, float* const* p, const Group& group) {
  constexpr int chains = smaller(16, kAccumulators);
  constexpr int blocks = count <= chains / 4 ? 4 : count <= chains / 2 ? 2 : 1;
  static_assert(blocks <= kFewestAhead, "what is fetched is not what is read at the same time");
  const auto step = [&](auto constant) __attribute__((always_inline)) {
    constexpr int n = decltype(constant)::value;
    if (!a.cold) return scores<half, count, n, false>(a, query, block, p, nullptr);
    const uint8_t* coming[n];
    for (int b = 0; b < n; b++) {
      const int next = block + b + group.ahead;
      coming[b] = static_cast<const uint8_t*>((block + b) % group.parts != group.part ? a.keys[block + b]
                                              : next < group.lastBlock                ? a.keys[next]
                                                                                      : a.values[group.firstBlock + next - group.lastBlock]);
    }
    scores<half, count, n, true>(a, query, block, p, coming);
  };
  for (; block + blocks <= end; block += blocks) step(Constant<blocks>{});
  for (; block < end; block++) step(Constant<1>{});
}

// Sums that are kept in registers at once: of so many queries, and of so many vectors of values where there are fewer.
constexpr int kValueQueries = kAccumulators >= 16 ? 6 : 2, kValueSums = kAccumulators >= 16 ? 24 : kAccumulators;
constexpr int valueVectors(int queries) { return smaller(4, larger(1, kValueSums / queries)); }

// o[j][offset...] += p_t * value_t for positions [begin, end) in order, for `count` queries and `vectors` * 16 of the values.
// Loops that the compiler does not unroll in time leave the sums in memory (4 queries: 600 instead of 375 ns each).
template <bool half, int count, int vectors, bool fetch>
[[gnu::noinline]] void addValues(const AttentionArgs& a, const float* const* p, int begin, int end, int offset, float* const* o, const Group& group) {
  constexpr size_t numberBytes = half ? 2 : 4;
  const size_t rowBytes = size_t(a.valueStride) * numberBytes;
  Float sum[count][vectors];
#pragma GCC unroll 6
  for (int j = 0; j < count; j++)
#pragma GCC unroll 6
    for (int v = 0; v < vectors; v++) sum[j][v] = load(o[j] + offset + v * kLanes);
  for (int t = begin; t < end;) {
    const unsigned block = unsigned(t) / kLanes;
    const int blockEnd = smaller(end, int(block + 1) * kLanes);
    const uint8_t* coming = nullptr;
    if constexpr (fetch) {
      const int next = int(block) + group.ahead;
      coming = static_cast<const uint8_t*>(int(block) % group.parts != group.part     ? a.values[block]
                                           : next < group.lastBlock                   ? a.values[next]
                                           : next - group.lastBlock < a.nextCount     ? a.next[next - group.lastBlock]
                                                                                      : a.values[block]);
    }
    const uint8_t* row = static_cast<const uint8_t*>(a.values[block]) + unsigned(t) % kLanes * rowBytes + size_t(offset) * numberBytes;
    for (; t < blockEnd; t++, row += rowBytes) {
      if constexpr (fetch) {
        fetchNear(coming, rowBytes);
        coming += rowBytes;
      }
      Float value[vectors];
#pragma GCC unroll 6
      for (int v = 0; v < vectors; v++) value[v] = loadCached<half>(row, size_t(v) * kLanes);
#pragma GCC unroll 6
      for (int j = 0; j < count; j++)
#pragma GCC unroll 6
        for (int v = 0; v < vectors; v++) sum[j][v] = fma(broadcast(p[j][t]), value[v], sum[j][v]);
    }
  }
#pragma GCC unroll 6
  for (int j = 0; j < count; j++)
#pragma GCC unroll 6
    for (int v = 0; v < vectors; v++) store(o[j] + offset + v * kLanes, sum[j][v]);
}

// All of the values' numbers; with the first of them whole values are fetched.
template <bool half, int count, bool fetch>
void addWholeValues(const AttentionArgs& a, const float* const* p, int begin, int end, float* const* o, const Group& group) {
  if (begin >= end) return;
  constexpr int vectors = valueVectors(count), step = vectors * kLanes;
  int offset = 0;
  if (fetch && step - kLanes < a.headDim) {
    addValues<half, count, vectors, fetch>(a, p, begin, end, offset, o, group);
    offset = step;
  }
  for (; offset + step - kLanes < a.headDim; offset += step) addValues<half, count, vectors, false>(a, p, begin, end, offset, o, group);
  for (; offset < a.headDim; offset += kLanes) addValues<half, count, 1, false>(a, p, begin, end, offset, o, group);
}

template <bool half>
void attention(const AttentionArgs& a) {
  int first = a.first[0], end = a.end[0];
  for (int j = 1; j < a.count; j++) {
    first = smaller(first, a.first[j]);
    end = larger(end, a.end[j]);
  }
  const int firstBlock = first / kLanes, lastBlock = (end + kLanes - 1) / kLanes;
  const auto beginOf = [&](int part, int parts) { return a.count * part / parts; };
  float* p[kMaxQueries];
  float* o[kMaxQueries];
  for (int j = 0; j < a.count; j++) {
    p[j] = a.scratch + size_t(j) * lastBlock * kLanes;
    o[j] = a.scratch + size_t(a.count) * lastBlock * kLanes + size_t(j) * a.valueStride;
  }

  const auto aheadOf = [&](int numbers) { return smaller(lastBlock - firstBlock, blocksAhead(size_t(numbers) * kLanes * (half ? 2 : 4))); };

  constexpr int mostTogether = smaller(8, kAccumulators);
  const int groups = (a.count + mostTogether - 1) / mostTogether, keysAhead = aheadOf(a.headDim);
  for (int block = firstBlock, to; block < lastBlock; block = to) {
    to = groups == 1 ? lastBlock : smaller(lastBlock, block + smaller(kStepBlocks, keysAhead));
    for (int i = 0; i < groups; i++) {
      const int query = beginOf(i, groups);
      withConstant<mostTogether>(beginOf(i + 1, groups) - query, [&](auto count) {
        scoresOfStep<half, decltype(count)::value>(a, query, block, to, p, {i, groups, firstBlock, lastBlock, keysAhead});
      });
    }
  }

  float inverse[kMaxQueries];
  for (int j = 0; j < a.count; j++) {
    const int from = a.first[j] / kLanes * kLanes, to = a.end[j];
    Float m = broadcast(kNegativeInfinity), z = broadcast(0);
    for (int t = from; t < to; t += kLanes) m = max(load(p[j] + t), m);
    m = broadcast(reduceMax(m));
    for (int t = from; t < to; t += kLanes) {
      const Float e = exp16(sub(load(p[j] + t), m));  // +0 for the scores of -infinity, whatever m is
      store(p[j] + t, e);
      z = add(z, e);
    }
    inverse[j] = 1.0f / reduceAdd(z);
  }

  // Of each group the positions that all its queries see, and in front of and behind them each query's own.
  const int pieces = (a.count + kValueQueries - 1) / kValueQueries;
  int begins[kMaxQueries], ends[kMaxQueries];
  for (int i = 0; i < pieces; i++) {
    const int from = beginOf(i, pieces), to = beginOf(i + 1, pieces);
    begins[i] = a.first[from];
    ends[i] = a.end[from];
    for (int j = from; j < to; j++) {
      begins[i] = larger(begins[i], a.first[j]);
      ends[i] = smaller(ends[i], a.end[j]);
    }
    ends[i] = larger(begins[i], ends[i]);
    for (int j = from; j < to; j++) {
      for (int v = 0; v < a.valueStride; v += kLanes) store(o[j] + v, broadcast(0));
      addWholeValues<half, 1, false>(a, p + j, a.first[j], smaller(begins[i], a.end[j]), o + j, {});
    }
  }
  const bool fetch = a.cold || a.nextCount > 0;
  const int valuesAhead = aheadOf(a.valueStride);
  for (int block = firstBlock, to; block < lastBlock; block = to) {
    to = pieces == 1 ? lastBlock : smaller(lastBlock, block + smaller(kStepBlocks, valuesAhead));
    for (int i = 0; i < pieces; i++) {
      const int query = beginOf(i, pieces), from = larger(begins[i], block * kLanes), until = smaller(ends[i], to * kLanes);
      withConstant<kValueQueries>(beginOf(i + 1, pieces) - query, [&](auto constant) {
        constexpr int count = decltype(constant)::value;
        if (fetch) addWholeValues<half, count, true>(a, p + query, from, until, o + query, {i, pieces, firstBlock, lastBlock, valuesAhead});
        else addWholeValues<half, count, false>(a, p + query, from, until, o + query, {});
      });
    }
  }
  for (int i = 0; i < pieces; i++)
    for (int j = beginOf(i, pieces); j < beginOf(i + 1, pieces); j++) {
      addWholeValues<half, 1, false>(a, p + j, ends[i], a.end[j], o + j, {});
      for (int d = 0; d < a.headDim; d += kLanes)
        storePart(a.outs[j] + d, mul(load(o[j] + d), broadcast(inverse[j])), smaller(kLanes, a.headDim - d));
    }
}

LANES_INLINE void rotate(Float& x0, Float& x1, Float c, Float s) {
  const Float y0 = fma(x0, c, negate(mul(x1, s)));
  x1 = fma(x0, s, mul(x1, c));
  x0 = y0;
}

void rope(float* x, int heads, int headDim, int rotary, bool interleaved, const float* cosSin) {
  const int half = rotary / 2;
  for (int h = 0; h < heads; h++) {
    float* head = x + size_t(h) * headDim;
    for (int i = 0; i < half; i += kLanes) {
      const int n = smaller(kLanes, half - i);
      const Float c = loadPart(cosSin + i, n), s = loadPart(cosSin + half + i, n);
      Float x0, x1;
      if (!interleaved) {
        x0 = loadPart(head + i, n);
        x1 = loadPart(head + half + i, n);
        rotate(x0, x1, c, s);
        storePart(head + i, x0, n);
        storePart(head + half + i, x1, n);
      } else if (n == kLanes) {
        loadPairs(head + 2 * i, x0, x1);
        rotate(x0, x1, c, s);
        storePairs(head + 2 * i, x0, x1);
      } else {
        float pairs[2 * kLanes] = {};
        __builtin_memcpy(pairs, head + 2 * i, size_t(n) * 8);
        loadPairs(pairs, x0, x1);
        rotate(x0, x1, c, s);
        storePairs(pairs, x0, x1);
        __builtin_memcpy(head + 2 * i, pairs, size_t(n) * 8);
      }
    }
  }
}

void siluMul(const float* gate, const float* up, int k, float* y) {
  for (int i = 0; i < k; i += kLanes) {
    const int n = smaller(kLanes, k - i);
    const Float g = loadPart(gate + i, n), u = loadPart(up + i, n);
    storePart(y + i, mul(div(g, add(broadcast(1.0f), exp16(negate(g)))), u), n);
  }
}

void gelu(const float* x, int k, float* y) {
  for (int i = 0; i < k; i += kLanes) {
    const int n = smaller(kLanes, k - i);
    storePart(y + i, gelu16(loadPart(x + i, n)), n);
  }
}

void geluMul(const float* gate, const float* up, int k, float* y) {
  for (int i = 0; i < k; i += kLanes) {
    const int n = smaller(kLanes, k - i);
    storePart(y + i, mul(gelu16(loadPart(gate + i, n)), loadPart(up + i, n)), n);
  }
}

void softCap(const float* x, int k, float cap, float* y) {
  for (int i = 0; i < k; i += kLanes) {
    const int n = smaller(kLanes, k - i);
    storePart(y + i, capped(loadPart(x + i, n), cap), n);
  }
}

void scale(const float* x, int k, float factor, float* y) {
  for (int i = 0; i < k; i += kLanes) {
    const int n = smaller(kLanes, k - i);
    storePart(y + i, mul(loadPart(x + i, n), broadcast(factor)), n);
  }
}

void addScaled(const float* x, int k, float factor, float* y) {
  for (int i = 0; i < k; i += kLanes) {
    const int n = smaller(kLanes, k - i);
    storePart(y + i, fma(loadPart(x + i, n), broadcast(factor), loadPart(y + i, n)), n);
  }
}

void addRows(const float* a, const float* b, int k, float* y) {
  int i = 0;
  for (; i + kLanes <= k; i += kLanes) store(y + i, add(load(a + i), load(b + i)));
  if (i < k) storePart(y + i, add(loadPart(a + i, k - i), loadPart(b + i, k - i)), k - i);
}

void storeF16(const float* x, int k, uint16_t* out, int stride) {
  for (int i = 0; i < k; i += kLanes) {
    const int n = smaller(kLanes, k - i);
    if (stride == 1 && n == kLanes) {
      storeHalf(out + i, load(x + i));
      continue;
    }
    uint16_t halves[kLanes];
    storeHalf(halves, loadPart(x + i, n));
    for (int lane = 0; lane < n; lane++) out[size_t(i + lane) * size_t(stride)] = halves[lane];
  }
}

float maximum(const float* x, int n) {
  constexpr int unrolled = 4;
  Float m[unrolled];
  for (Float& v : m) v = broadcast(kNegativeInfinity);
  Mask nan = isNaN(m[0]);
  int i = 0;
  for (; i + unrolled * kLanes <= n; i += unrolled * kLanes)
    for (int j = 0; j < unrolled; j++) {
      const Float v = load(x + i + j * kLanes);
      nan = either(nan, isNaN(v));
      m[j] = max(v, m[j]);
    }
  for (; i < n; i += kLanes) {
    const int left = smaller(kLanes, n - i);
    const Float v = select(laneRange(0, left), loadPart(x + i, left), m[0]);
    nan = either(nan, isNaN(v));
    m[0] = max(v, m[0]);
  }
  if (bits(nan) != 0)
    for (i = 0; i < n; i++)
      if (x[i] != x[i]) return x[i];
  const float largest = reduceMax(max(max(m[0], m[1]), max(m[2], m[3])));
  if (largest == 0)  // the reference keeps the first of several zeros, and with it the sign
    for (i = 0; i < n; i++)
      if (x[i] == 0) return x[i];
  return largest;
}

float sumExp(const float* x, int n, float m, float inverseTemperature) {
  Float sum = broadcast(0);
  for (int i = 0; i < n; i += kLanes) {
    const int left = smaller(kLanes, n - i);
    const Float e = exp16(mul(sub(loadPart(x + i, left), broadcast(m)), broadcast(inverseTemperature)));
    sum = add(sum, select(laneRange(0, left), e, broadcast(0)));
  }
  return reduceAdd(sum);
}

int firstAbove(const float* x, int from, int n, float bound) {
  constexpr int unrolled = 4;
  int i = from;
  for (; i + unrolled * kLanes <= n; i += unrolled * kLanes) {
    Mask above[unrolled];
    for (int j = 0; j < unrolled; j++) above[j] = greater(load(x + i + j * kLanes), broadcast(bound));
    if (bits(either(either(above[0], above[1]), either(above[2], above[3]))) == 0) continue;
    for (int j = 0; j < unrolled; j++)
      if (const unsigned found = bits(above[j])) return i + j * kLanes + __builtin_ctz(found);
  }
  for (; i < n; i += kLanes) {
    const int left = smaller(kLanes, n - i);
    const unsigned found = bits(greater(loadPart(x + i, left), broadcast(bound))) & ((1u << left) - 1);
    if (found) return i + __builtin_ctz(found);
  }
  return n;
}

int gumbelArgmax(const float* x, int n, float m, float inverseTemperature, uint64_t key) {
  Float bestValue = broadcast(kNegativeInfinity);
  Int best = broadcastInt(0);
  for (int i = 0; i < n; i += kLanes) {
    const int left = smaller(kLanes, n - i);
    const Int token = add(laneIndex(), broadcastInt(i));
    Float value = add(mul(sub(loadPart(x + i, left), broadcast(m)), broadcast(inverseTemperature)), gumbel(key, token));
    value = select(laneRange(0, left), value, broadcast(kNegativeInfinity));
    const Mask better = greater(value, bestValue);
    bestValue = select(better, value, bestValue);
    best = select(better, token, best);
  }
  float values[kLanes];
  int32_t tokens[kLanes];
  store(values, bestValue);
  storeInt(tokens, best);
  int lane = 0;
  for (int i = 1; i < kLanes; i++)
    if (values[i] > values[lane] || (values[i] == values[lane] && tokens[i] < tokens[lane])) lane = i;
  return tokens[lane];
}

template <WeightType type>
constexpr MatmulFn quantisedProduct() {
  if constexpr (isBlockQuantised(type)) return matmulQuantised<type>;
  else return nullptr;
}
// The table of this instruction set around its matmulQuantised<type>.
template <WeightType... types>
constexpr Kernels kernelTable(const char* name, WeightTypes<types...>) {
  return {name, {quantisedProduct<types>()...}, {matmulFloat<types>...},
          quantise, rmsNorm, layerNorm, attention<true>, attention<false>, rope, siluMul, gelu, geluMul, softCap, scale,
          addScaled, addRows, storeF16, maximum, sumExp, firstAbove, gumbelArgmax};
}
