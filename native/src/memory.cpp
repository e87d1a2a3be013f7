#include "memory.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "error.h"
#if defined(__linux__)
#include <sys/mman.h>
#elif defined(__wasm__)
#include <map>
#include <mutex>
#endif

namespace outrider {
namespace {
std::atomic<size_t> bytesAlive{0}, blocksAlive{0};

#if defined(__linux__)
constexpr size_t kHugePage = size_t(1) << 21;

void* take(size_t bytes, bool) {
  // Untouched pages cost nothing; huge pages spare a memory-bound pass its page-table walks.
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  if (bytes >= kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}
void give(void* p, size_t bytes) { munmap(p, bytes); }

#elif defined(__wasm__)
// Fresh pages are zero and cost nothing until they are touched, but never go back to the system: what is given waits
// for the next.
constexpr size_t kPage = 65536;
std::mutex heap;
std::map<size_t, size_t> unused;  // runs of pages: where each begins, how long it is

void* take(size_t bytes, bool zeroed) {
  const std::lock_guard<std::mutex> lock(heap);
  const size_t pages = bytes / kPage + (bytes % kPage != 0);
  auto best = unused.end();
  for (auto run = unused.begin(); run != unused.end(); ++run)
    if (run->second >= pages && (best == unused.end() || run->second < best->second)) best = run;
  if (best == unused.end()) {
    const size_t begin = __builtin_wasm_memory_grow(0, pages);
    return begin == SIZE_MAX ? nullptr : reinterpret_cast<void*>(begin * kPage);
  }
  const auto [begin, length] = *best;
  unused.erase(best);
  if (length > pages) unused[begin + pages] = length - pages;
  void* p = reinterpret_cast<void*>(begin * kPage);
  if (zeroed) std::memset(p, 0, bytes);
  return p;
}
void give(void* p, size_t bytes) {
  const std::lock_guard<std::mutex> lock(heap);
  const size_t begin = reinterpret_cast<size_t>(p) / kPage;
  auto run = unused.emplace(begin, bytes / kPage + (bytes % kPage != 0)).first;
  const auto next = std::next(run);
  if (next != unused.end() && run->first + run->second == next->first) {
    run->second += next->second;
    unused.erase(next);
  }
  if (run == unused.begin()) return;
  const auto before = std::prev(run);
  if (before->first + before->second != run->first) return;
  before->second += run->second;
  unused.erase(run);
}

#else
void* take(size_t bytes, bool) {
  void* p = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (p) std::memset(p, 0, bytes);
  return p;
}
void give(void* p, size_t) { std::free(p); }
#endif
}  // namespace

Memory::Memory(size_t bytes, bool zeroed) : bytes_(bytes) {
  if (bytes == 0) return;
  void* p = take(bytes, zeroed);
  if (!p) throw CoreError("ERR_RUNTIME", "out of memory: " + std::to_string(bytes >> 20) + " MB could not be had");
  data_ = static_cast<uint8_t*>(p);
  bytesAlive += bytes;
  blocksAlive += 1;
}

Memory& Memory::operator=(Memory&& other) noexcept {
  if (this != &other) {
    release();
    data_ = other.data_;
    bytes_ = other.bytes_;
    other.data_ = nullptr;
    other.bytes_ = 0;
  }
  return *this;
}

void Memory::release() {
  if (!data_) return;
  give(data_, bytes_);
  bytesAlive -= bytes_;
  blocksAlive -= 1;
  data_ = nullptr;
}

size_t addressable(double bytes, const char* what) {
  if (bytes > double(SIZE_MAX / 2))
    throw CoreError("ERR_RUNTIME", std::string("out of memory: ") + what + " of " + std::to_string(int64_t(bytes / 0x1p20)) +
                                       " MB are more than this build of the core can address");
  return size_t(bytes);
}

size_t Memory::liveBytes() { return bytesAlive; }
size_t Memory::liveBlocks() { return blocksAlive; }

}  // namespace outrider
