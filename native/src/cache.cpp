#include "cache.h"

#include <cstring>
#include <string>

#include "error.h"

namespace outrider {
namespace {
int checked(int64_t value, int64_t most, const char* what) {
  if (value < 1 || value > most)
    throw programError(std::string("cache: ") + what + " is " + std::to_string(value) + ", expected 1 to " + std::to_string(most));
  return int(value);
}
// 4096 layers of 4096 heads in 2^24 blocks do not fit 64 bits.
size_t bytes(int layers, size_t blocks, int heads, size_t blockBytes) {
  const double total = double(layers) * double(blocks) * heads * double(blockBytes);
  if (total > 0x1p46) throw programError("cache: " + std::to_string(int64_t(total / 0x1p30)) + " GiB, expected at most 65536");
  return addressable(total, "keys or values");
}
template <class T>
void copyLane(const void* from, int fromLane, void* to, int toLane, int headDim) {
  for (int d = 0; d < headDim; d++)
    static_cast<T*>(to)[d * kLanes + toLane] = static_cast<const T*>(from)[d * kLanes + fromLane];
}

void fetchToWrite(const void* to, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(to) + i, 1);
}
}  // namespace

Cache::Cache(int64_t layers_, int64_t heads_, int64_t headDim_, int64_t blocks_, bool half_)
    : layers(checked(layers_, 4096, "the number of layers")), heads(checked(heads_, 4096, "the number of heads")),
      headDim(checked(headDim_, 4096, "the head size")), blocks(checked(blocks_, 1 << 24, "the number of blocks")),
      half(half_), valueStride((headDim + kLanes - 1) / kLanes * kLanes), element_(half ? 2 : 4),
      keyBytes_(size_t(headDim) * kLanes * element_), valueBytes_(size_t(valueStride) * kLanes * element_),
      keys_(bytes(layers, runs(blocks) * kRun, heads, keyBytes_), false), values_(bytes(layers, runs(blocks) * kRun, heads, valueBytes_), false) {}

void Cache::store(const Kernels& kernels, int layer, int cell, const float* k, const float* v) {
  const int block = cell / kLanes, lane = cell % kLanes;
  // All lines at once: one or two of a key's numbers lie in each, and stores wait for one line after another.
  for (int h = 0; h < heads; h++) {
    fetchToWrite(keys(layer, block, h), keyBytes_);
    fetchToWrite(static_cast<uint8_t*>(values(layer, block, h)) + size_t(lane) * size_t(valueStride) * element_, size_t(valueStride) * element_);
  }
  for (int h = 0; h < heads; h++, k += headDim, v += headDim) {
    if (half) {
      kernels.storeF16(k, headDim, static_cast<uint16_t*>(keys(layer, block, h)) + lane, kLanes);
      kernels.storeF16(v, headDim, static_cast<uint16_t*>(values(layer, block, h)) + size_t(lane) * valueStride, 1);
    } else {
      float* key = static_cast<float*>(keys(layer, block, h)) + lane;
      for (int d = 0; d < headDim; d++) key[size_t(d) * kLanes] = k[d];
      std::memcpy(static_cast<float*>(values(layer, block, h)) + size_t(lane) * valueStride, v, size_t(headDim) * 4);
    }
  }
}

void Cache::gather(int layer, int head, int cell, int lane, void* keyBlock, void* valueBlock) const {
  const void* k = keys(layer, cell / kLanes, head);
  if (half) copyLane<uint16_t>(k, cell % kLanes, keyBlock, lane, headDim);
  else copyLane<float>(k, cell % kLanes, keyBlock, lane, headDim);
  const size_t row = size_t(valueStride) * element_;
  std::memcpy(static_cast<uint8_t*>(valueBlock) + lane * row,
              static_cast<const uint8_t*>(values(layer, cell / kLanes, head)) + cell % kLanes * row, row);
}

void Cache::copy(const int32_t* from, const int32_t* to, int count) {
  for (int i = 0; i < count; i++)
    if (from[i] < 0 || from[i] >= cells() || to[i] < 0 || to[i] >= cells())
      throw programError("cache copy " + std::to_string(i) + ": cell " + std::to_string(from[i]) + " to " +
                         std::to_string(to[i]) + ", expected 0 to " + std::to_string(cells() - 1));
  const std::unique_lock<std::mutex> lock(busy, std::try_to_lock);
  if (!lock.owns_lock()) throw CoreError("ERR_RUNTIME", "cache copy: a pass is running on this cache");
  copies_.reserve(copies_.size() + size_t(count));
  for (int i = 0; i < count; i++)
    if (from[i] != to[i]) copies_.push_back({from[i], to[i]});
}

// Cells that follow each other lie in the same lines, so a head's copies are made together.
void Cache::copyLayer(int layer) {
  for (int h = 0; h < heads; h++)
    for (const Copy& c : copies_)
      gather(layer, h, c.from, c.to % kLanes, keys(layer, c.to / kLanes, h), values(layer, c.to / kLanes, h));
}

}  // namespace outrider
