// Large zeroed blocks that the core owns: weights, caches, activations. Counted, so that a test can see a leak.
#pragma once
#include <cstddef>
#include <cstdint>

namespace outrider {

class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes);  // throws CoreError where the system has no more
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
