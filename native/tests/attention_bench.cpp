// Attention over a past that lies in memory, not in the caches, for the rows of one pass of SmolLM2-135M (30 layers, 3
// key/value heads of 3 queries, 64 numbers, float16), by rows and table; rounds are interleaved.
// Then what becomes of prefetches that are issued in bursts.
//   node scripts/build-native.mjs --bench attention [past [rounds]]
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "../src/cache.h"
#include "../src/memory.h"
#include "pair.h"

using namespace outrider;

namespace {

constexpr int kLayers = 30, kHeads = 3, kGroup = 3, kDim = 64, kThreads = 2;

double microseconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double>& values) {
  std::nth_element(values.begin(), values.begin() + long(values.size() / 2), values.end());
  return values[values.size() / 2];
}

void readPasts(int past, int rounds) {
  const int blocks = past / kLanes + 1;
  // So many caches that each is out of the processor's when its turn comes again.
  const size_t bytes = size_t(blocks) * kLayers * kHeads * kDim * kLanes * 4;
  std::vector<Cache*> caches;
  for (size_t i = 0; i <= (size_t(150) << 20) / bytes + 1; i++) {
    caches.push_back(new Cache(kLayers, kHeads, kDim, blocks, true));
    std::vector<float> row(kHeads * kDim, 0.25f);
    for (int layer = 0; layer < kLayers; layer++)
      for (int cell = 0; cell < caches.back()->cells(); cell++) caches.back()->store(reference(), layer, cell, row.data(), row.data());
  }
  struct Thread { std::vector<const void*> keys, values, next; std::vector<float> out, scratch; } threads[kThreads];
  for (Thread& t : threads) {
    t.out.resize(kMaxQueries * kDim);
    t.scratch.resize(size_t(kMaxQueries) * (size_t(blocks) * kLanes + kDim));
  }
  const std::vector<float> query(kDim, 0.01f);
  Pair pair;
  size_t turn = 0;
  const auto pass = [&](const Kernels& table, int rows) {
    const Cache& cache = *caches[++turn % caches.size()];
    pair.run([&](int thread) {
      Thread& t = threads[thread];
      const auto blocksOf = [&](int item, bool keys, int count, std::vector<const void*>& into) {
        into.clear();
        for (int b = 0; b < count; b++) {
          const int layer = item / kHeads, head = item % kHeads;
          into.push_back(keys ? cache.keys(layer, b, head) : cache.values(layer, b, head));
        }
      };
      for (int item = thread; item < kLayers * kHeads; item += kThreads) {
        blocksOf(item, true, blocks, t.keys);
        blocksOf(item, false, blocks, t.values);
        blocksOf(item + kThreads, true, item + kThreads < kLayers * kHeads ? std::min(blocks, kMostAhead) : 0, t.next);
        const int count = rows * kGroup;
        const float* queries[kMaxQueries];
        float* outs[kMaxQueries];
        int first[kMaxQueries], end[kMaxQueries];
        for (int j = 0; j < count; j++) {
          queries[j] = query.data();
          outs[j] = t.out.data() + j * kDim;
          first[j] = 0;
          end[j] = std::min(past + 1 + j / kGroup, blocks * kLanes);
        }
        table.attentionF16({kDim, kDim, t.keys.data(), t.values.data(), count, queries, first, end, outs, 0.125f, 0, true,
                            t.next.data(), int(t.next.size()), t.scratch.data()});
      }
    });
  };
  struct Case { const Kernels* table; int rows; std::vector<double> us; };
  std::vector<Case> cases;
  for (const Kernels* table : fastKernels())
    for (const int rows : {1, 2, 4, 8}) cases.push_back({table, rows, {}});
  for (int round = 0; round < rounds; round++)
    for (Case& c : cases) c.us.push_back(microseconds([&] { pass(*c.table, c.rows); }));
  const double read = 2.0 * blocks * kLanes * kDim * 2 * kLayers * kHeads;
  std::printf("past %d, %.1f MB of keys and values, %d threads\n", past, read * 1e-6, kThreads);
  for (Case& c : cases) {
    const double us = median(c.us);
    std::printf("  %-7s rows %d  median %8.3f ms  %5.1f GB/s\n", c.table->name, c.rows, us * 1e-3, read / us * 1e-3);
  }
  for (Cache* cache : caches) delete cache;
}

size_t readUpTo = 0;

// 128 KiB prefetched `burst` lines at a time with a pause between, and read 20 us later: how long either takes.
template <int burst>
void prefetchInBursts(const Memory& memory, int rounds) {
  constexpr size_t bytes = 128 << 10;
  std::vector<double> issued, read;
  std::atomic<uint64_t> sink{0};
  for (int i = 0; i < rounds; i++) {
    readUpTo = (readUpTo + 3 * bytes) % (memory.bytes() - bytes);  // never what was read before
    const uint8_t* from = memory.data() + readUpTo;
    if (burst > 0)
      issued.push_back(microseconds([&] {
        for (size_t line = 0; line < bytes; line += 64 * size_t(burst)) {
          for (size_t j = 0; j < size_t(burst); j++) {
            __builtin_prefetch(from + line + 64 * j);
            asm volatile("");  // a loop that only prefetches is left out by the compiler
          }
          if (size_t(burst) * 64 < bytes) _mm_pause();
        }
      }));
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < std::chrono::microseconds(20)) _mm_pause();
    read.push_back(microseconds([&] {
      uint64_t sum = 0;
      for (size_t line = 0; line < bytes; line += 64) sum += *reinterpret_cast<const uint64_t*>(from + line);
      sink += sum;
    }));
  }
  if (burst == 0) std::printf("  not prefetched                         then read in %5.2f us\n", median(read));
  else std::printf("  %4d lines at once  issued in %5.2f us  then read in %5.2f us\n", burst, median(issued), median(read));
}

}  // namespace

int main(int argc, char** argv) {
  const int past = argc > 1 ? std::atoi(argv[1]) : 1000, rounds = argc > 2 ? std::atoi(argv[2]) : 41;
  if (past < 1 || past > 100000 || rounds < 1) return 2;
  readPasts(past, rounds);
  Memory memory(size_t(512) << 20);
  for (size_t i = 0; i < memory.bytes(); i += 64) memory.data()[i] = uint8_t(i >> 6);
  std::printf("128 KiB from memory\n");
  prefetchInBursts<0>(memory, rounds);
  prefetchInBursts<2048>(memory, rounds);
  prefetchInBursts<32>(memory, rounds);
  prefetchInBursts<16>(memory, rounds);
  prefetchInBursts<8>(memory, rounds);
}
