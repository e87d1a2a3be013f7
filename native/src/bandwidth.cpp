#include "bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "memory.h"

namespace outrider {
namespace {
struct Reading {
  const uint64_t* words;
  size_t count;
  int chunks;
  std::atomic<uint64_t> sum{0};
};
}  // namespace

double readMilliseconds(Core& core, size_t bytes, int repetitions) {
  Memory memory(bytes);
  std::memset(memory.data(), 1, bytes);
  Reading reading{reinterpret_cast<const uint64_t*>(memory.data()), bytes / 8, core.pool.threads() * 16, {}};
  const auto work = [](void* context, int, int chunk, int) {
    Reading& r = *static_cast<Reading*>(context);
    const uint64_t* p = r.words + r.count * size_t(chunk) / size_t(r.chunks);
    const uint64_t* end = r.words + r.count * size_t(chunk + 1) / size_t(r.chunks);
    uint64_t sum = 0;  // of one word of each line: whole lines come from memory
    for (; p + 8 <= end; p += 8) {
      __builtin_prefetch(p + 384);
      sum += *p;
    }
    r.sum += sum;
  };
  double best = 1e300;
  for (int i = 0; i < repetitions; i++) {
    const auto begin = std::chrono::steady_clock::now();
    core.pool.run(&reading.chunks, 1, work, [](void*) { return false; }, &reading);
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

}  // namespace outrider
