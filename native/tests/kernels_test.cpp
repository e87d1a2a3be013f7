// Every table of kernels against reference(), bit for bit, over seeded random shapes and values; and every row (or
// query) of a batch against the same row alone. Buffers have exactly the promised size, so the address sanitizer sees
// a load past the end; what lies between the outputs is compared too, so a store past them shows everywhere.
//   kernels_test [seed]
#include "../src/cache.h"
#include "../src/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../src/numbers.h"

// What quantises rows at load, with wide registers and without, is nobody's business but that file's: so the file is here
// as a whole, optimised as in the core, under another name than that of the linked one.
#define quantiseRows quantiseRowsOfTheTest
#ifndef __clang__
#pragma GCC push_options
#pragma GCC optimize("O3")
#endif
#include "../src/quantise.cpp"
#ifndef __clang__
#pragma GCC pop_options
#endif
#undef quantiseRows

using namespace outrider;

namespace {

constexpr float kInfinity = __builtin_inff(), kNaN = __builtin_nanf("");

int passed = 0, failed = 0;
const Kernels* table = nullptr;

void check(bool ok, const std::string& what) {
  if (ok) {
    ++passed;
  } else if (++failed <= 20) {
    std::printf("FAILED: %s: %s\n", table->name, what.c_str());
  }
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
bool same(float a, float b) { return std::memcmp(&a, &b, 4) == 0; }

uint64_t state;
uint64_t random64() {
  uint64_t z = state += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
int between(int low, int high) { return low + int(random64() % uint64_t(high - low + 1)); }
bool oneIn(int n) { return between(1, n) == 1; }
float uniform(float low, float high) { return low + (high - low) * (float(random64() >> 40) * 0x1p-24f); }

// Mostly around 1; some zeros of both signs, some far away, some subnormal. Products of two stay finite.
float value() {
  switch (between(0, 19)) {
    case 0: return 0.0f;
    case 1: return -0.0f;
    case 2: return std::ldexp(uniform(-1, 1), between(-40, 40));
    case 3: return oneIn(4) ? uniform(-1, 1) * 0x1p-130f : uniform(-0.01f, 0.01f);
    default: return uniform(-2, 2);
  }
}
std::vector<float> values(size_t n) {
  std::vector<float> v(n);
  for (float& x : v) x = value();
  return v;
}
uint16_t finiteHalf() {
  uint16_t h;
  do h = uint16_t(random64()); while ((h & 0x7c00) == 0x7c00);
  return oneIn(2) ? h : floatToHalf(uniform(-0.1f, 0.1f));
}

const char* const kTypeNames[kNumWeightTypes] = {"F32",  "F16",  "BF16", "Q4_0", "Q4_1", "Q5_0",   "Q5_1",  "Q8_0",
                                                 "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"};

std::vector<uint8_t> randomWeights(WeightType type, int k, int tiles, bool extreme) {
  std::vector<uint8_t> w(size_t(tiles) * tileBytes(type, k));
  const auto put16 = [&](size_t at, uint16_t v) { std::memcpy(w.data() + at, &v, 2); };
  if (!isBlockQuantised(type)) {
    const size_t size = type == WeightType::F32 ? 4 : 2;
    for (size_t at = 0; at < w.size(); at += size) {
      const float f = value();
      if (type == WeightType::F32) std::memcpy(w.data() + at, &f, 4);
      else put16(at, type == WeightType::F16 ? finiteHalf() : uint16_t(floatToBits(f) >> 16));
    }
    return w;
  }
  const size_t halves = size_t(halvesOffset(type)), halvesEnd = halves + (hasMinima(type) ? 64 : 32);
  const uint8_t ends[2] = {0x00, 0xff};
  const bool mostly = oneIn(2);
  for (size_t at = 0; at < w.size(); at++) {
    const size_t within = at % (blockBytes(type) * kLanes);
    if (within < halves || within >= halvesEnd) w[at] = extreme ? ends[oneIn(16) != mostly] : uint8_t(random64());
    else if (within % 2 == 0) put16(at, finiteHalf());
  }
  return w;
}

// Now and then more than a step of rows (stepRows).
int randomRows() { return oneIn(40) ? between(65, 80) : oneIn(2) ? between(1, 9) : between(1, 40); }

void testMatmul(int typeIndex, bool quantised) {
  const WeightType type = AllWeightTypes::list[typeIndex];
  const int longest = oneIn(8) ? 1536 : 512, inputs = blockInputs(type);
  const int k = inputs * between(1, longest / inputs);
  const int rows = randomRows(), tiles = between(1, 7), tileBegin = between(0, tiles - 1), tileEnd = between(tileBegin, tiles);
  // Extreme: the largest products of one sign in one sum, where 16 bits might saturate.
  const bool extreme = oneIn(5);
  const std::vector<uint8_t> weights = randomWeights(type, k, tiles, extreme);

  const size_t rowBytes = quantised ? QuantisedRow::bytes(k) : size_t(k) * 4;
  const size_t xStride = rowBytes + 4 * size_t(between(0, 20));
  std::vector<uint8_t> x(size_t(rows - 1) * xStride + rowBytes);
  for (int r = 0; r < rows; r++) {
    std::vector<float> row = values(size_t(k));
    if (extreme && quantised)
      for (float& v : row) v = (r % 2 ? -1.0f : 1.0f) * (oneIn(30) ? 0.5f : 1.0f);
    if (quantised) reference().quantise(row.data(), k, 0, k, x.data() + size_t(r) * xStride);
    else std::memcpy(x.data() + size_t(r) * xStride, row.data(), rowBytes);
  }

  const size_t outStride = size_t(tiles) * kLanes + size_t(between(0, 3));
  const std::vector<float> before = values(size_t(rows - 1) * outStride + size_t(tiles) * kLanes);
  std::vector<float> expected = before, found = before;
  MatmulArgs args{weights.data(), k, quantised && tiles % 2 == 0, tileBegin, tileEnd, x.data(), xStride, rows, expected.data(), outStride, oneIn(2), oneIn(2)};
  const auto of = [&](const Kernels& t) { return quantised ? t.matmulQuantised[typeIndex] : t.matmulFloat[typeIndex]; };
  of(reference())(args);
  args.out = found.data();
  of(*table)(args);
  const std::string what = std::string(quantised ? "matmulQuantised " : "matmulFloat ") + kTypeNames[typeIndex] + " k " +
                           std::to_string(k) + " rows " + std::to_string(rows) + " tiles " + std::to_string(tileBegin) +
                           " to " + std::to_string(tileEnd);
  check(same(expected, found), what);

  const int row = between(0, rows - 1);
  std::vector<float> alone = before;
  args.x = x.data() + size_t(row) * xStride;
  args.rows = 1;
  args.out = alone.data() + size_t(row) * outStride;
  of(*table)(args);
  check(std::memcmp(args.out, found.data() + size_t(row) * outStride, size_t(tiles) * kLanes * 4) == 0,
        what + ", row " + std::to_string(row) + " alone");
}

// Each of the 65536 halves as a weight of one input.
void testAllHalves() {
  std::vector<uint16_t> halves;
  for (int h = 0; h < 65536; h++)
    if ((h & 0x7c00) != 0x7c00 || (h & 0x3ff) == 0) halves.push_back(uint16_t(h));
  halves.resize(halves.size() / kLanes * kLanes);
  const float one = 1;
  std::vector<float> expected(halves.size()), found(halves.size());
  MatmulArgs args{reinterpret_cast<const uint8_t*>(halves.data()), 1, false, 0, int(halves.size()) / kLanes, &one, 4, 1,
                  expected.data(), halves.size(), false, false};
  reference().matmulFloat[1](args);
  args.out = found.data();
  table->matmulFloat[1](args);
  check(same(expected, found), "all halves");
}

void testQuantise() {
  const int k = 32 * between(1, 48);
  std::vector<float> x = values(size_t(k));
  for (int b = 0; b < k / 32; b++) {
    const int kind = between(0, 9);
    for (int i = 0; i < 32; i++) {
      float& v = x[size_t(b * 32 + i)];
      if (kind == 0) v = oneIn(2) ? 0.0f : -0.0f;
      if (kind == 1) v = uniform(-1, 1) * 0x1p-100f;
      if (kind == 2) v = float(between(-254, 254)) * 0.5f;  // ties
      if (kind == 3) v *= 0x1p+60f;
      if (kind == 4 && oneIn(8)) v = oneIn(2) ? kNaN : -kInfinity;
    }
    if (kind == 2) x[size_t(b * 32 + between(0, 31))] = 127;
  }
  std::vector<uint8_t> expected(QuantisedRow::bytes(k), 0xa5), found = expected;
  reference().quantise(x.data(), k, 0, k, expected.data());
  const int cut = 32 * between(0, k / 32);  // a row may be quantised in parts
  table->quantise(x.data() + cut, k, cut, k - cut, found.data());
  table->quantise(x.data(), k, 0, cut, found.data());
  check(same(expected, found), "quantise k " + std::to_string(k) + " cut at " + std::to_string(cut));
}

void testRmsNorm() {
  const int k = between(1, oneIn(4) ? 1600 : 100);
  const std::vector<float> x = values(size_t(k)), weight = values(size_t(k));
  const float eps = oneIn(2) ? 1e-5f : 1e-6f;
  std::vector<float> expected(size_t(k) + 1, 7.0f), found = expected;
  reference().rmsNorm(x.data(), weight.data(), k, eps, expected.data());
  table->rmsNorm(x.data(), weight.data(), k, eps, found.data());
  check(same(expected, found), "rmsNorm k " + std::to_string(k));
}

void testLayerNorm() {
  const int k = between(1, oneIn(4) ? 1600 : 100);
  std::vector<float> x = values(size_t(k));
  const std::vector<float> weight = values(size_t(k)), bias = values(size_t(k));
  if (oneIn(4)) std::fill(x.begin(), x.end(), oneIn(2) ? -0.0f : 3.0f);
  std::vector<float> expected(size_t(k) + 1, 7.0f), found = expected;
  reference().layerNorm(x.data(), weight.data(), bias.data(), k, 1e-5f, expected.data());
  table->layerNorm(x.data(), weight.data(), bias.data(), k, 1e-5f, found.data());
  check(same(expected, found), "layerNorm k " + std::to_string(k));
}

void testAttention(bool half) {
  const int headDim = oneIn(20) ? between(129, 264) : oneIn(2) ? 16 * between(1, 8) : between(8, 128), count = between(1, kMaxQueries);
  const int valueStride = (headDim + 15) / 16 * 16 + 16 * between(0, 1), longest = oneIn(4) ? 400 : 70;
  int first[kMaxQueries], end[kMaxQueries];
  const int kind = between(0, 2), window = between(1, longest), start = between(1, longest);
  for (int j = 0; j < count; j++) {
    if (kind == 0) {  // rows of one sequence
      end[j] = start + j;
      first[j] = 0;
    } else if (kind == 1) {  // with a window
      end[j] = start + j / 2;
      first[j] = std::max(0, end[j] - window);
    } else {
      end[j] = between(1, longest);
      first[j] = between(0, end[j] - 1);
    }
  }
  const int last = *std::max_element(end, end + count), begin = *std::min_element(first, first + count);
  const int blocks = (last + 15) / 16;

  // Positions that no query sees hold garbage; blocks before all of them do not exist.
  const size_t size = half ? 2 : 4, keyCount = size_t(headDim) * 16, valueCount = size_t(valueStride) * 16;
  const auto put = [&](std::vector<uint8_t>& block, size_t index, float v) {
    const uint16_t h = floatToHalf(v);
    if (half) std::memcpy(block.data() + index * 2, &h, 2);
    else std::memcpy(block.data() + index * 4, &v, 4);
  };
  const float garbage[3] = {kNaN, kInfinity, 6e4f};
  std::vector<std::vector<uint8_t>> keyBytes, valueBytes;
  std::vector<const void*> keys, blockValues;
  for (int b = 0; b < blocks; b++) {
    const bool exists = b >= begin / 16;
    keyBytes.emplace_back(exists ? keyCount * size : 0);
    valueBytes.emplace_back(exists ? valueCount * size : 0);
    keys.push_back(exists ? keyBytes.back().data() : nullptr);
    blockValues.push_back(exists ? valueBytes.back().data() : nullptr);
    if (!exists) continue;
    for (int lane = 0; lane < 16; lane++) {
      bool seen = false;
      for (int j = 0; j < count; j++) seen |= first[j] <= b * 16 + lane && b * 16 + lane < end[j];
      const bool broken = oneIn(50);  // a position that is seen and has no score: it weighs nothing
      for (int d = 0; d < headDim; d++)
        put(keyBytes.back(), size_t(d) * 16 + lane, !seen ? garbage[between(0, 2)] : broken ? kNaN : uniform(-3, 3));
      for (int d = 0; d < valueStride; d++)
        put(valueBytes.back(), size_t(lane) * valueStride + d, seen && d < headDim ? value() : garbage[between(0, 2)]);
    }
  }

  std::vector<std::vector<float>> queryRows, expected, found;
  std::vector<const float*> queries;
  std::vector<float*> outs, foundOuts;
  for (int j = 0; j < count; j++) {
    queryRows.push_back(values(size_t(headDim)));
    for (float& q : queryRows.back()) q = std::max(-4.0f, std::min(4.0f, q));
    expected.emplace_back(size_t(headDim) + 1, 7.0f);
    found.emplace_back(size_t(headDim) + 1, 7.0f);
  }
  for (int j = 0; j < count; j++) {
    queries.push_back(queryRows[size_t(j)].data());
    outs.push_back(expected[size_t(j)].data());
    foundOuts.push_back(found[size_t(j)].data());
  }
  std::vector<float> scratch(size_t(count) * (size_t(blocks) * 16 + size_t(valueStride)), kNaN);
  const int existing = blocks - begin / 16;  // blocks of keys of any call may be the next ones
  AttentionArgs args{headDim, valueStride, keys.data(), blockValues.data(), count, queries.data(), first, end, outs.data(),
                     1.0f / std::sqrt(float(headDim)), oneIn(3) ? uniform(0.5f, 50) : 0.0f, oneIn(2),
                     keys.data() + begin / 16, between(0, std::min(kMostAhead, existing)), scratch.data()};
  (half ? reference().attentionF16 : reference().attentionF32)(args);
  args.outs = foundOuts.data();
  std::fill(scratch.begin(), scratch.end(), kNaN);
  (half ? table->attentionF16 : table->attentionF32)(args);
  const std::string what = std::string(half ? "attentionF16" : "attentionF32") + " headDim " + std::to_string(headDim) +
                           " count " + std::to_string(count) + " end " + std::to_string(last);
  for (int j = 0; j < count; j++)
    check(same(expected[size_t(j)], found[size_t(j)]), what + ", query " + std::to_string(j));

  const int j = between(0, count - 1);
  std::vector<float> alone(size_t(headDim) + 1, 7.0f);
  float* aloneOut = alone.data();
  args.count = 1;
  args.queries = &queries[size_t(j)];
  args.first = first + j;
  args.end = end + j;
  args.outs = &aloneOut;
  (half ? table->attentionF16 : table->attentionF32)(args);
  check(same(alone, found[size_t(j)]), what + ", query " + std::to_string(j) + " alone");
}

void testRope() {
  const int heads = between(1, 9), headDim = 2 * between(1, 64), rotary = oneIn(2) ? headDim : 2 * between(1, headDim / 2);
  const bool interleaved = oneIn(2);
  std::vector<float> expected = values(size_t(heads) * headDim), found = expected, cosSin = values(size_t(rotary));
  for (float& f : cosSin) f = uniform(-1, 1);
  reference().rope(expected.data(), heads, headDim, rotary, interleaved, cosSin.data());
  table->rope(found.data(), heads, headDim, rotary, interleaved, cosSin.data());
  check(same(expected, found), std::string("rope ") + (interleaved ? "interleaved" : "halves") + " headDim " +
                                   std::to_string(headDim) + " rotary " + std::to_string(rotary));
}

void testElementwise() {
  const int k = between(1, 200);
  std::vector<float> a = values(size_t(k)), b = values(size_t(k));
  for (float& g : a)
    if (oneIn(3)) g = uniform(-100, 100);
  std::vector<float> expected(size_t(k) + 1, 7.0f), found = expected;
  reference().siluMul(a.data(), b.data(), k, expected.data());
  table->siluMul(a.data(), b.data(), k, found.data());
  check(same(expected, found), "siluMul k " + std::to_string(k));
  reference().add(a.data(), b.data(), k, expected.data());
  table->add(a.data(), b.data(), k, found.data());
  check(same(expected, found), "add k " + std::to_string(k));

  reference().gelu(a.data(), k, expected.data());
  table->gelu(a.data(), k, found.data());
  check(same(expected, found), "gelu k " + std::to_string(k));
  reference().geluMul(a.data(), b.data(), k, expected.data());
  table->geluMul(a.data(), b.data(), k, found.data());
  check(same(expected, found), "geluMul k " + std::to_string(k));
  const float factor = uniform(0.1f, 60);
  reference().softCap(a.data(), k, factor, expected.data());
  table->softCap(a.data(), k, factor, found.data());
  check(same(expected, found), "softCap k " + std::to_string(k));
  reference().addScaled(b.data(), k, factor, expected.data());
  table->addScaled(b.data(), k, factor, found.data());
  check(same(expected, found), "addScaled k " + std::to_string(k));
  reference().scale(a.data(), k, factor, expected.data());
  table->scale(a.data(), k, factor, found.data());
  check(same(expected, found), "scale k " + std::to_string(k));

  for (float& x : a) {
    if (oneIn(4)) x = bitsToFloat(uint32_t(random64()));              // any bits
    if (oneIn(8)) x = halfToFloat(finiteHalf()) * (1 + 0x1p-11f);     // ties
    if (x != x) x = bitsToFloat(floatToBits(x) | 0x400000);
  }
  for (const int stride : {1, 16}) {
    std::vector<uint16_t> expectedHalves(size_t(k - 1) * stride + 1, 0xa5a5), halves = expectedHalves;
    reference().storeF16(a.data(), k, expectedHalves.data(), stride);
    table->storeF16(a.data(), k, halves.data(), stride);
    check(same(expectedHalves, halves), "storeF16 k " + std::to_string(k) + " stride " + std::to_string(stride));
  }
}

// Against the C library in double precision: the definitions are what their names say.
void testFunctions() {
  double worstTanh = 0, worstGelu = 0;
  for (int i = 0; i < 200000; i++) {
    const float x = oneIn(4) ? uniform(-0.7f, 0.7f) : uniform(-12, 12);
    float t, g;
    table->softCap(&x, 1, 1.0f, &t);
    table->gelu(&x, 1, &g);
    const double tanhX = std::tanh(double(x)), u = 0.79788456080286536 * (double(x) + 0.044715 * std::pow(double(x), 3));
    const double geluX = double(x) / (1 + std::exp(-2 * u));
    worstTanh = std::max(worstTanh, std::fabs(double(t) - tanhX) / std::max(std::fabs(tanhX), 1e-30));
    worstGelu = std::max(worstGelu, std::fabs(double(g) - geluX) / (std::fabs(geluX) + 1e-6));
  }
  check(worstTanh < 3e-7, "tanh is off by " + std::to_string(worstTanh * 1e7) + "e-7");
  check(worstGelu < 2e-6, "gelu is off by " + std::to_string(worstGelu * 1e7) + "e-7");
}

void testExp() {
  std::vector<float> x, ones, expected, found;
  for (int i = 0; i < 100000; i++) x.push_back(uniform(-95, 95));
  for (const float edge : {kExpLow, -kExpLow, kExpHigh, -kExpHigh, 0.0f, -0.0f, kInfinity, -kInfinity})
    for (const float direction : {-kInfinity, edge, kInfinity}) x.push_back(std::nextafter(edge, direction));
  ones.resize(x.size(), 1.0f);
  expected.resize(x.size());
  found.resize(x.size());
  reference().siluMul(x.data(), ones.data(), int(x.size()), expected.data());
  table->siluMul(x.data(), ones.data(), int(x.size()), found.data());
  check(same(expected, found), "siluMul over the range of exp");
  for (const float special : {kNaN, kTanhSplit, -kTanhSplit, std::nextafter(kTanhSplit, 0.0f)}) {
    x.push_back(special);
    expected.push_back(0);
    found.push_back(0);
  }
  reference().softCap(x.data(), int(x.size()), 1, expected.data());
  table->softCap(x.data(), int(x.size()), 1, found.data());
  check(same(expected, found), "softCap over the range of exp, and of NaN");
  reference().gelu(x.data(), int(x.size()), expected.data());
  table->gelu(x.data(), int(x.size()), found.data());
  check(same(expected, found), "gelu over the range of exp, and of NaN");
}

void testSampling() {
  const int n = between(1, oneIn(4) ? 3000 : 100);
  const std::string what = " n " + std::to_string(n);
  std::vector<float> x(static_cast<size_t>(n));
  const int kind = between(0, 5);
  for (float& v : x) {
    v = kind == 0 ? -kInfinity : kind == 1 ? float(between(-2, 2)) : kind == 2 ? -std::fabs(value()) : uniform(-20, 20);
    if ((kind == 1 || kind == 2) && v == 0) v = oneIn(2) ? 0.0f : -0.0f;
    if (kind == 3 && oneIn(10)) v = -kInfinity;
  }
  const float bound = oneIn(3) ? x[size_t(between(0, n - 1))] : uniform(-25, 25);
  for (int i = 0; i < 3; i++) {
    const int from = between(0, n);
    check(reference().firstAbove(x.data(), from, n, bound) == table->firstAbove(x.data(), from, n, bound), "firstAbove" + what);
  }
  const float m = reference().maximum(x.data(), n);
  check(same(m, table->maximum(x.data(), n)), "maximum" + what);
  const float inverse = 1.0f / uniform(0.05f, 2);
  const uint64_t key = random64();
  check(same(reference().sumExp(x.data(), n, m, inverse), table->sumExp(x.data(), n, m, inverse)), "sumExp" + what);
  check(reference().gumbelArgmax(x.data(), n, m, inverse, key) == table->gumbelArgmax(x.data(), n, m, inverse, key),
        "gumbelArgmax" + what);
  // So large that the noise is lost: ties go to the lowest index.
  std::vector<float> ties(x.size());
  for (float& v : ties) v = oneIn(3) ? 1e12f : -1e12f;
  check(reference().gumbelArgmax(ties.data(), n, 0, 1, key) == table->gumbelArgmax(ties.data(), n, 0, 1, key),
        "gumbelArgmax with ties" + what);

  x[size_t(between(0, n - 1))] = bitsToFloat(0x7fc00000 + uint32_t(between(0, 1000)));
  x[size_t(between(0, n - 1))] = bitsToFloat(0xffc00000 + uint32_t(between(0, 1000)));
  check(same(reference().maximum(x.data(), n), table->maximum(x.data(), n)), "maximum with NaN" + what);
  check(same(reference().sumExp(x.data(), n, m, inverse), table->sumExp(x.data(), n, m, inverse)), "sumExp with NaN" + what);
  check(reference().gumbelArgmax(x.data(), n, m, inverse, key) == table->gumbelArgmax(x.data(), n, m, inverse, key),
        "gumbelArgmax with NaN" + what);
  check(reference().firstAbove(x.data(), 0, n, bound) == table->firstAbove(x.data(), 0, n, bound), "firstAbove with NaN" + what);
}

#if defined(__x86_64__)
// Weights of a file: of about one size, or within a few units of the middle between two levels, where a fused or a reordered
// operation shows; then and now a block of zeros, of one number, or of any bits at all.
void weights(uint8_t* bytes, size_t each, WeightType from, int levels) {
  const int kind = between(0, 9);
  const float scale = std::ldexp(uniform(1, 2), between(-20, 4)), alone = value();
  for (int i = 0; i < kBlock; i++, bytes += each) {
    float w = scale * uniform(-1, 1);
    if (kind == 0) w = 0.0f;
    if (kind == 1) w = alone;
    if (kind == 2) w = value();
    if (kind >= 6) w = scale * (i < 2 ? float(i * levels) : float(between(1, levels)) - 0.5f);
    uint32_t bits = floatToBits(w);
    if (kind >= 6 && i >= 2) bits = uint32_t(int(bits) + between(-2, 2)) ^ uint32_t(oneIn(2) && levels == 127) << 31;
    if (from == WeightType::F16) bits = floatToHalf(bitsToFloat(bits));
    if (from == WeightType::BF16) bits >>= 16;
    if (kind == 3 || (kind == 4 && oneIn(20))) bits = uint32_t(random64());
    std::memcpy(bytes, &bits, each);
  }
}

void testQuantiseRows() {
  if (!__builtin_cpu_supports("avx2")) return;
  for (const WeightType from : {WeightType::F32, WeightType::F16, WeightType::BF16})
    for (const WeightType to : {WeightType::Q8_0, WeightType::Q4_1}) {
      const int blocks = between(1, 12), k = blocks * kBlock;
      const size_t each = from == WeightType::F32 ? 4 : 2;
      std::vector<uint8_t> in(size_t(k) * each);
      for (int b = 0; b < blocks; b++) weights(in.data() + size_t(b) * kBlock * each, each, from, to == WeightType::Q8_0 ? 127 : 15);
      const size_t bytes = size_t(blocks) * (to == WeightType::Q8_0 ? 34 : 20);
      std::vector<float> x(static_cast<size_t>(k)), y(x);
      std::vector<uint8_t> plain(bytes, 0x5a), wide(bytes, 0xa5);
      quantiseRowPlain(from, to, in.data(), k, x.data(), plain.data());
      quantiseRowAvx2(from, to, in.data(), k, y.data(), wide.data());
      check(same(plain, wide), "quantiseRow from " + std::to_string(int(from)) + " to " + std::to_string(int(to)) + " k " + std::to_string(k));
    }
}
#endif

// Every cell has a place of its own: what is stored in one is read back from it, and copies arrive.
void testCache() {
  const int layers = between(1, 4), heads = between(1, 3), headDim = between(8, 40), blocks = between(1, 35);
  const bool half = oneIn(2);
  Cache cache(layers, heads, headDim, blocks, half);
  const int cells = cache.cells(), width = heads * headDim;
  // Small whole numbers, exact as float16 too, that differ from cell to cell, layer to layer, number to number.
  const auto number = [&](int layer, int cell, int i) { return float((cell * 7 + layer * 311 + i * 13) % 2039); };
  std::vector<float> k(static_cast<size_t>(width)), v(static_cast<size_t>(width));
  for (int cell = cells - 1; cell >= 0; cell--)
    for (int layer = 0; layer < layers; layer++) {
      for (int i = 0; i < width; i++) {
        k[size_t(i)] = number(layer, cell, i);
        v[size_t(i)] = -number(layer, cell, i) - 1;
      }
      cache.store(*table, layer, cell, k.data(), v.data());
    }
  std::vector<int> holds(static_cast<size_t>(cells));
  for (int cell = 0; cell < cells; cell++) holds[size_t(cell)] = cell;
  std::vector<int32_t> from, to;
  for (int i = between(0, 9); i > 0; i--) {
    from.push_back(between(0, cells - 1));
    to.push_back(between(0, cells - 1));
    holds[size_t(to.back())] = holds[size_t(from.back())];
  }
  cache.copy(from.data(), to.data(), int(from.size()));
  for (int layer = 0; layer < layers; layer++) cache.copyLayer(layer);
  cache.endCopies();
  const size_t size = half ? 2 : 4;
  bool right = true;
  for (int cell = 0; cell < cells; cell++)
    for (int layer = 0; layer < layers; layer++)
      for (int head = 0; head < heads; head++) {
        const uint8_t* keys = static_cast<const uint8_t*>(cache.keys(layer, cell / kLanes, head));
        const uint8_t* values = static_cast<const uint8_t*>(cache.values(layer, cell / kLanes, head));
        for (int d = 0; d < headDim; d++) {
          const auto at = [&](const uint8_t* block, size_t index) {
            uint16_t h;
            float f;
            std::memcpy(&h, block + index * size, 2);
            if (half) return halfToFloat(h);
            std::memcpy(&f, block + index * size, 4);
            return f;
          };
          const float expected = number(layer, holds[size_t(cell)], head * headDim + d);
          right = right && at(keys, size_t(d) * kLanes + size_t(cell % kLanes)) == expected &&
                  at(values, size_t(cell % kLanes) * size_t(cache.valueStride) + size_t(d)) == -expected - 1;
        }
      }
  check(right, "cache of " + std::to_string(layers) + " layers, " + std::to_string(heads) + " heads, " + std::to_string(blocks) + " blocks");
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  std::vector<const Kernels*> tables = {&reference()};
  for (const Kernels* t : fastKernels()) tables.push_back(t);
  for (const Kernels* t : tables) {
    table = t;
    state = seed;
    const int before = passed;
    // Against itself the reference shows only that its rows are independent.
    const int rounds = t == &reference() ? 20 : 400;
    for (int i = 0; i < rounds; i++) {
      for (int type = 0; type < kNumWeightTypes; type++) {
        if (i % 2 == 0) testMatmul(type, false);
        if (isBlockQuantised(AllWeightTypes::list[type])) testMatmul(type, true);
      }
      testQuantise();
      testRmsNorm();
      testLayerNorm();
      for (int j = 0; j < 3; j++) {
        testAttention(true);
        testAttention(false);
      }
      testRope();
      testCache();
      testElementwise();
      testSampling();
    }
    testAllHalves();
    testExp();
    testFunctions();
    std::printf("%s: %d passed\n", t->name, passed - before);
  }
#if defined(__x86_64__)
  const int before = passed;
  for (int i = 0; i < 4000; i++) testQuantiseRows();
  std::printf("rows quantised at load: %d passed\n", passed - before);
#endif
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
