// The matrix products of one pass of SmolLM2-135M (30 layers in Q4_1, the head in Q8_0), or of four layers of Llama 3.2
// 1B in one weight type, by rows, threads and table, beside reading the same bytes once. Rounds are interleaved, so that
// other work on the machine hits all alike.
//   node scripts/build-native.mjs --bench kernels [rounds [TYPE]]     TYPE: ggml's number; best and median ms, GMAC/s of the best
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "../src/kernels.h"
#include "pair.h"

using namespace outrider;

namespace {

struct Product {
  int k, columns;
  WeightType type;
  const uint8_t* weights;
};

constexpr int kMaxRows = 512, kLongest = 8192;

double milliseconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

// work(part) for each part at the same time; the parts of a pass do not wait for each other here.
void split(Pair* pair, const std::function<void(int)>& work) {
  if (pair) pair->run(work);
  else work(0);
}

__attribute__((target("avx2"))) uint64_t readBytes(const uint8_t* from, size_t bytes) {
  __m256i sum[4] = {};
  for (size_t i = 0; i + 128 <= bytes; i += 128)
    for (int j = 0; j < 4; j++) {
      _mm_prefetch(reinterpret_cast<const char*>(from + i + 3072 + 32 * j), _MM_HINT_T0);
      sum[j] = _mm256_xor_si256(sum[j], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + 32 * j)));
    }
  sum[0] = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return uint64_t(_mm256_extract_epi64(sum[0], 0) ^ _mm256_extract_epi64(sum[0], 1));
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  const int shapes[][2] = {{576, 576}, {576, 192}, {576, 192}, {576, 576}, {576, 1536}, {576, 1536}, {1536, 576}};
  std::vector<Product> products;
  size_t bytes = 0;
  double macs = 0;
  const auto addProduct = [&](int k, int columns, WeightType type) {
    products.push_back({k, columns, type, nullptr});
    bytes += size_t(columns / kLanes) * tileBytes(type, k);
    macs += double(k) * columns;
  };
  if (argc > 2) {
    const int llama[][2] = {{2048, 2048}, {2048, 512}, {2048, 512}, {2048, 2048}, {2048, 8192}, {2048, 8192}, {8192, 2048}};
    for (int layer = 0; layer < 4; layer++)
      for (const auto& s : llama) addProduct(s[0], s[1], WeightType(std::atoi(argv[2])));
  } else {
    for (int layer = 0; layer < 30; layer++)
      for (const auto& s : shapes) addProduct(s[0], s[1], WeightType::Q4_1);
    addProduct(576, 49152, WeightType::Q8_0);
  }

  // Small bytes everywhere: as fp16 scales they are finite.
  uint8_t* memory = static_cast<uint8_t*>(std::aligned_alloc(4096, (bytes + 8191) / 4096 * 4096));
  for (size_t i = 0; i < bytes; i++) memory[i] = uint8_t(i * 7 % 61);
  size_t at = 0;
  for (Product& p : products) {
    p.weights = memory + at;
    at += size_t(p.columns / kLanes) * tileBytes(p.type, p.k);
  }

  std::vector<float> row(kLongest);
  for (int i = 0; i < kLongest; i++) row[size_t(i)] = float((i * 37 % 101) - 50) * 0.02f;
  std::map<int, std::vector<uint8_t>> x;  // by k
  for (const Product& p : products) {
    std::vector<uint8_t>& quantised = x[p.k];
    const size_t stride = QuantisedRow::bytes(p.k);
    if (!quantised.empty()) continue;
    quantised.resize(stride * kMaxRows);
    for (int r = 0; r < kMaxRows; r++) reference().quantise(row.data(), p.k, 0, p.k, quantised.data() + size_t(r) * stride);
  }
  std::vector<float> out(size_t(kMaxRows) * 49152);

  std::unique_ptr<Pair> pair;  // only while two threads are measured: the second one spins
  const auto pass = [&](const Kernels& table, int rows, int threads) {
    split(pair.get(), [&](int part) {
      for (const Product& p : products) {
        const int tiles = p.columns / kLanes;
        const MatmulFn run = table.matmulQuantised[typeIndex(p.type)];
        run({p.weights, p.k, pairs(p.type) && tiles % 2 == 0, tiles / 2 * part / threads * 2, tiles / 2 * (part + 1) / threads * 2, x.at(p.k).data(),
             QuantisedRow::bytes(p.k), rows, out.data() + size_t(tiles) / 2 * size_t(part) / size_t(threads) * 2 * kLanes, size_t(p.columns), false, false});
      }
    });
  };

  struct Case {
    const Kernels* table;  // nullptr: read the bytes only
    int rows, threads;
    std::vector<double> ms;
  };
  std::vector<Case> cases;
  for (const int threads : {1, 2}) {
    cases.push_back({nullptr, 0, threads, {}});
    for (const Kernels* table : {avx512(), avx2()})
      if (table)
        for (const int rows : {1, 2, 3, 4, 6, 8, 16, 64, 512}) cases.push_back({table, rows, threads, {}});
  }
  std::atomic<uint64_t> sink{0};
  for (int round = 0; round < rounds; round++)
    for (Case& c : cases) {
      if (c.rows == 512 && round % 4 != 0) continue;
      pair = c.threads > 1 ? std::make_unique<Pair>() : nullptr;
      c.ms.push_back(milliseconds([&] {
        if (c.table) return pass(*c.table, c.rows, c.threads);
        split(pair.get(), [&](int part) {
          const size_t share = bytes / size_t(c.threads) / 128 * 128;
          sink += readBytes(memory + share * size_t(part), share);
        });
      }));
    }
  std::printf("%.1f MB of weights, %.1f million multiply-adds a row\n", double(bytes) * 1e-6, macs * 1e-6);
  for (Case& c : cases) {
    std::sort(c.ms.begin(), c.ms.end());
    const double best = c.ms.front(), median = c.ms[c.ms.size() / 2];
    if (!c.table)
      std::printf("threads %d  read only          best %8.2f  median %8.2f ms  %6.1f GB/s\n", c.threads, best, median,
                  double(bytes) / best * 1e-6);
    else
      std::printf("threads %d  %-6s rows %3d    best %8.2f  median %8.2f ms  %6.1f GMAC/s\n", c.threads, c.table->name, c.rows,
                  best, median, macs * c.rows / best * 1e-6);
  }
  std::free(memory);
}
