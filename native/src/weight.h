// A weight matrix in the packed form of kernels.h, filled once from a file's bytes.
#pragma once
#include "kernels.h"
#include "memory.h"

namespace outrider {

class Weight {
 public:
  // rows: output columns of the product; k: inputs. Throws CoreError.
  Weight(int type, int64_t rows, int64_t k);
  // `bytes` holds whole rows in the file's layout, the first of them row `first`.
  void pack(const uint8_t* bytes, size_t size, int64_t first);
  void unpackRow(int64_t row, float* out) const;  // [k] dequantised
  size_t fileRowBytes() const;

  const WeightType type;
  const int rows, k;
  const int tiles;
  const uint8_t* data() const { return memory_.data(); }
  const uint8_t* tile(int index) const { return memory_.data() + size_t(index) * tileBytes(type, k); }

 private:
  Memory memory_;
};

}  // namespace outrider
