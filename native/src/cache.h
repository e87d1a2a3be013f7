// Keys and values by block of 16 positions. Which block belongs to which sequence is the caller's table; the core
// only knows cells: block * 16 + lane.
#pragma once
#include <cstdint>
#include <mutex>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace outrider {

class Cache {
 public:
  Cache(int64_t layers, int64_t heads, int64_t headDim, int64_t blocks, bool half);
  const int layers, heads, headDim, blocks;
  const bool half;
  const int valueStride;
  int cells() const { return blocks * kLanes; }

  void* keys(int layer, int block, int head) const { return keys_.data() + index(layer, block, head) * keyBytes_; }
  void* values(int layer, int block, int head) const { return values_.data() + index(layer, block, head) * valueBytes_; }
  void store(const Kernels&, int layer, int cell, const float* k, const float* v);
  // All layers' keys and values of cell from[i] go to cell to[i], in order, when the next pass begins: its threads share
  // the layers. CoreError where a cell does not exist or a pass is running.
  void copy(const int32_t* from, const int32_t* to, int count);
  // For the pass, which holds `busy`.
  bool hasCopies() const { return !copies_.empty(); }
  void copyLayer(int layer);
  void endCopies() { copies_.clear(); }
  // Copies lane positions of one layer and head from a cell into a block-shaped scratch.
  void gather(int layer, int head, int cell, int lane, void* keyBlock, void* valueBlock) const;
  size_t keyBlockBytes() const { return keyBytes_; }
  size_t valueBlockBytes() const { return valueBytes_; }

  std::mutex busy;  // held by a running pass and by copy

 private:
  // Blocks that follow each other lie side by side, so that the processor reads a long past ahead; but few of them, so
  // that what is resident grows with the positions in use, 128 at a time, huge pages or not.
  static constexpr int kRun = 8;
  static size_t runs(int64_t blocks) { return size_t(blocks + kRun - 1) / kRun; }
  size_t index(int layer, int block, int head) const {
    return ((size_t(block / kRun) * layers + layer) * heads + head) * kRun + size_t(block % kRun);
  }
  struct Copy { int32_t from, to; };
  std::vector<Copy> copies_;
  size_t element_, keyBytes_, valueBytes_;
  Memory keys_, values_;
};

}  // namespace outrider
