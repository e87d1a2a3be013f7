// Large zeroed blocks that the core owns: weights, caches, activations. Counted, so that a test can see a leak.
#pragma once
#include <cstddef>
#include <cstdint>

namespace outrider {

// A size that was reckoned in double: CoreError where this machine's addresses do not reach so far.
size_t addressable(double bytes, const char* what);

class Memory {
 public:
  Memory() = default;
  // Throws CoreError where the system has no more. zeroed: false where what memory held before does no harm.
  explicit Memory(size_t bytes, bool zeroed = true);
  Memory(Memory&& other) noexcept : data_(other.data_), bytes_(other.bytes_) { other.data_ = nullptr; other.bytes_ = 0; }
  Memory& operator=(Memory&& other) noexcept;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { release(); }
  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  static size_t liveBytes();
  static size_t liveBlocks();

 private:
  void release();
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace outrider
