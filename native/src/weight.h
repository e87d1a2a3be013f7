// A weight matrix in the packed form of kernels.h, filled once from a file's bytes.
#pragma once
#include <memory>
#include <mutex>

#include "kernels.h"
#include "memory.h"

namespace outrider {

// One block of memory for all weights of a model: in huge pages a memory-bound pass neither walks page tables nor
// stops its prefetchers every 4 KiB (SmolLM2-135M, one token: the Q4_1 products read 17 GB/s in small pages).
class Arena {
 public:
  explicit Arena(size_t bytes) : memory_(bytes) {}
  // 64-byte aligned; throws CoreError where the arena was made too small.
  uint8_t* take(size_t bytes);

 private:
  std::mutex mutex_;
  Memory memory_;
  size_t used_ = 0;
};

class Weight {
 public:
  // rows: output columns of the product; k: inputs. Throws CoreError.
  Weight(std::shared_ptr<Arena> arena, int type, int64_t rows, int64_t k);
  static size_t packedBytes(int type, int64_t rows, int64_t k);
  // `bytes` holds whole rows in the file's layout, the first of them row `first`.
  void pack(const uint8_t* bytes, size_t size, int64_t first);
  void unpackRow(int64_t row, float* out) const;  // [k] dequantised
  size_t fileRowBytes() const;

  const WeightType type;
  const int rows, k;
  const int tiles;
  const bool paired;  // kernels.h
  const uint8_t* data() const { return data_; }

 private:
  std::shared_ptr<Arena> arena_;
  uint8_t* data_;
};

}  // namespace outrider
