#include "memory.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "error.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace outrider {
namespace {
std::atomic<size_t> bytesAlive{0}, blocksAlive{0};
constexpr size_t kHugePage = size_t(1) << 21;
}  // namespace

Memory::Memory(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
#if defined(__linux__)
  // Untouched pages cost nothing; huge pages spare a memory-bound pass its page-table walks.
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) p = nullptr;
  if (p && bytes >= kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
#else
  void* p = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (p) std::memset(p, 0, bytes);
#endif
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
#if defined(__linux__)
  munmap(data_, bytes_);
#else
  std::free(data_);
#endif
  bytesAlive -= bytes_;
  blocksAlive -= 1;
  data_ = nullptr;
}

size_t Memory::liveBytes() { return bytesAlive; }
size_t Memory::liveBlocks() { return blocksAlive; }

}  // namespace outrider
