#include "weight.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "error.h"
#include "numbers.h"

namespace outrider {
namespace {

WeightType checkedType(int type) {
  switch (type) {
    case 0: case 1: case 2: case 3: case 8: case 30: return WeightType(type);
    default: throw CoreError("ERR_MODEL_UNSUPPORTED", "weight type " + std::to_string(type) + " is not supported");
  }
}

int checkedSize(int64_t value, const char* what) {
  if (value < 1 || value > (int64_t(1) << 26))
    throw programError(std::string("weight: ") + what + " is " + std::to_string(value) + ", expected 1 to 2^26");
  return int(value);
}

int checkedInputs(int type, int64_t k) {
  const int checked = checkedSize(k, "the row length");
  if (isBlockQuantised(checkedType(type)) && checked % kBlock != 0)
    throw programError("weight: the row length is " + std::to_string(k) + ", expected a multiple of 32");
  return checked;
}

uint16_t read16(const uint8_t* p) { uint16_t v; std::memcpy(&v, p, 2); return v; }

}  // namespace

uint8_t* Arena::take(size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (bytes > memory_.bytes() - used_)
    throw programError("weights: " + std::to_string(bytes) + " bytes do not fit the " + std::to_string(memory_.bytes() - used_) +
                       " that are left for them");
  uint8_t* p = memory_.data() + used_;
  used_ = std::min(memory_.bytes(), (used_ + bytes + 63) / 64 * 64);
  return p;
}

size_t Weight::packedBytes(int type, int64_t rows, int64_t k) {
  const int inputs = checkedInputs(type, k), columns = checkedSize(rows, "the number of rows");
  return (size_t((columns + kLanes - 1) / kLanes) * tileBytes(WeightType(type), inputs) + 63) / 64 * 64;
}

Weight::Weight(std::shared_ptr<Arena> arena, int type_, int64_t rows_, int64_t k_)
    : type(checkedType(type_)), rows(checkedSize(rows_, "the number of rows")), k(checkedInputs(type_, k_)),
      tiles((rows + kLanes - 1) / kLanes), arena_(std::move(arena)), data_(arena_->take(packedBytes(type_, rows_, k_))) {}

size_t Weight::fileRowBytes() const {
  switch (type) {
    case WeightType::F32: return size_t(k) * 4;
    case WeightType::F16:
    case WeightType::BF16: return size_t(k) * 2;
    case WeightType::Q4_0: return size_t(k / kBlock) * 18;
    case WeightType::Q4_1: return size_t(k / kBlock) * 20;
    case WeightType::Q8_0: return size_t(k / kBlock) * 34;
  }
  return 0;
}

void Weight::pack(const uint8_t* bytes, size_t size, int64_t first) {
  const size_t rowBytes = fileRowBytes();
  const int64_t count = int64_t(size / rowBytes);
  if (size % rowBytes != 0 || first < 0 || count > rows - first)
    throw programError("pack: " + std::to_string(size) + " bytes from row " + std::to_string(first) + " do not fit " +
                       std::to_string(rows) + " rows of " + std::to_string(rowBytes) + " bytes");
  for (int64_t i = 0; i < count; i++) {
    const uint8_t* in = bytes + size_t(i) * rowBytes;
    const size_t c = size_t(first + i) % kLanes;
    uint8_t* out = data_ + size_t(first + i) / kLanes * tileBytes(type, k);
    switch (type) {
      case WeightType::F32:
        for (int x = 0; x < k; x++) std::memcpy(out + (size_t(x) * kLanes + c) * 4, in + size_t(x) * 4, 4);
        break;
      case WeightType::F16:
      case WeightType::BF16:
        for (int x = 0; x < k; x++) std::memcpy(out + (size_t(x) * kLanes + c) * 2, in + size_t(x) * 2, 2);
        break;
      case WeightType::Q4_0:
      case WeightType::Q4_1: {
        // A file block is d, (m,) 16 bytes: byte 4 g + j holds inputs 4 g + j and 16 + 4 g + j, as a tile's does.
        const size_t head = type == WeightType::Q4_1 ? 4 : 2;
        for (int b = 0; b < k / kBlock; b++, in += head + 16, out += 256 + 16 * head) {
          for (int g = 0; g < 4; g++) std::memcpy(out + 64 * g + 4 * c, in + head + 4 * g, 4);
          std::memcpy(out + 256 + 2 * c, in, 2);
          if (head == 4) std::memcpy(out + 288 + 2 * c, in + 2, 2);
        }
        break;
      }
      case WeightType::Q8_0:
        for (int b = 0; b < k / kBlock; b++, in += 34, out += 544) {
          for (int g = 0; g < 8; g++) {
            uint32_t four;
            std::memcpy(&four, in + 2 + 4 * g, 4);
            four ^= 0x80808080u;
            std::memcpy(out + 64 * g + 4 * c, &four, 4);
          }
          std::memcpy(out + 512 + 2 * c, in, 2);
        }
        break;
    }
  }
}

void Weight::unpackRow(int64_t row, float* y) const {
  if (row < 0 || row >= rows)
    throw programError("unpackRow: row " + std::to_string(row) + " of " + std::to_string(rows));
  const size_t c = size_t(row) % kLanes;
  const uint8_t* t = tile(int(row / kLanes));
  switch (type) {
    case WeightType::F32:
      for (int x = 0; x < k; x++) std::memcpy(y + x, t + (size_t(x) * kLanes + c) * 4, 4);
      break;
    case WeightType::F16:
      for (int x = 0; x < k; x++) y[x] = halfToFloat(read16(t + (size_t(x) * kLanes + c) * 2));
      break;
    case WeightType::BF16:
      for (int x = 0; x < k; x++) y[x] = bfloatToFloat(read16(t + (size_t(x) * kLanes + c) * 2));
      break;
    case WeightType::Q4_0:
    case WeightType::Q4_1: {
      const bool minima = type == WeightType::Q4_1;
      for (int b = 0; b < k / kBlock; b++, t += minima ? 320 : 288, y += kBlock) {
        const float d = halfToFloat(read16(t + 256 + 2 * c)), m = minima ? halfToFloat(read16(t + 288 + 2 * c)) : 0.0f;
        for (int i = 0; i < 16; i++) {
          const int both = t[64 * (i / 4) + 4 * c + i % 4], low = both & 15, high = both >> 4;
          y[i] = minima ? std::fma(float(low), d, m) : float(low - 8) * d;
          y[i + 16] = minima ? std::fma(float(high), d, m) : float(high - 8) * d;
        }
      }
      break;
    }
    case WeightType::Q8_0:
      for (int b = 0; b < k / kBlock; b++, t += 544, y += kBlock) {
        const float d = halfToFloat(read16(t + 512 + 2 * c));
        for (int i = 0; i < kBlock; i++) y[i] = float(int(t[64 * (i / 4) + 4 * c + i % 4]) - 128) * d;
      }
      break;
  }
}

}  // namespace outrider
