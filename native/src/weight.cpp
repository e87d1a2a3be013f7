#include "weight.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "error.h"
#include "tile.h"

namespace outrider {
namespace {

WeightType checkedType(int type) {
  if (typeIndex(WeightType(type)) < 0)
    throw CoreError("ERR_MODEL_UNSUPPORTED", "weight type " + std::to_string(type) + " is not supported");
  return WeightType(type);
}

int checkedSize(int64_t value, const char* what) {
  if (value < 1 || value > (int64_t(1) << 26))
    throw programError(std::string("weight: ") + what + " is " + std::to_string(value) + ", expected 1 to 2^26");
  return int(value);
}

int checkedInputs(int type, int64_t k) {
  const int checked = checkedSize(k, "the row length");
  const int block = blockInputs(checkedType(type));
  if (checked % block != 0)
    throw programError("weight: the row length is " + std::to_string(k) + ", expected a multiple of " + std::to_string(block));
  return checked;
}

// From a block of a row as the file has it to column c of a block of a tile. The type is a constant: packing is what
// loading a model takes its time for.
template <WeightType type_>
class ColumnWriter {
 public:
  ColumnWriter(uint8_t* block, size_t c) : block_(block), c_(c) {}

  void halves(const uint8_t* d, const uint8_t* minimum = nullptr) {
    std::memcpy(block_ + halvesOffset(type_) + 2 * c_, d, 2);
    if (minimum) std::memcpy(block_ + halvesOffset(type_) + 32 + 2 * c_, minimum, 2);
  }
  void lines(const uint8_t* bytes, int count, int first = 0) {
    for (int i = 0; i < count; i++) block_[kLanes * size_t(first + i) + c_] = bytes[i];
  }
  // Groups of four inputs that are packed as in the tile already.
  void copyLow(int b, const uint8_t* bytes, int groups) {
    for (int g = 0; g < groups; g++) std::memcpy(quants(b) + 64 * g, bytes + 4 * g, 4);
  }
  // Of 32 inputs a byte each, the bits from `shift` on.
  void nibbles(int b, const uint8_t* low, int shift) {
    for (int g = 0; g < 4; g++)
      put(quants(b) + 64 * g, (word(low, g) >> shift & 0x0f0f0f0fu) | (word(low, g + 4) >> shift & 0x0f0f0f0fu) << 4);
  }
  void crumbs(int b, const uint8_t* from, int shift, bool high = false) {
    for (int v = 0; v < 2; v++) {
      uint32_t four = 0;
      for (int p = 0; p < 4; p++) four |= (word(from, 4 * v + p) >> shift & 0x03030303u) << 2 * p;
      put(quants(b) + (high ? lowBytes(type_) : 0) + 64 * v, four);
    }
  }
  void highBits(int b, const uint8_t* from, int shift) {
    uint32_t four = 0;
    for (int g = 0; g < 8; g++) four |= (word(from, g) >> shift & 0x01010101u) << g;
    put(quants(b) + lowBytes(type_), four);
  }
  // One bit for each of 32 inputs.
  void highBits(const uint8_t* mask) {
    uint32_t bits;
    std::memcpy(&bits, mask, 4);
    uint8_t spread[kBlock];
    for (int i = 0; i < kBlock; i++) spread[i] = bits >> i & 1;
    highBits(0, spread, 0);
  }

 private:
  uint8_t* quants(int b) const { return block_ + quantsOffset(type_) + size_t(b) * size_t(lowBytes(type_) + highBytes(type_)) + 4 * c_; }
  static uint32_t word(const uint8_t* p, int i) { uint32_t v; std::memcpy(&v, p + 4 * i, 4); return v; }
  static void put(uint8_t* p, uint32_t v) { std::memcpy(p, &v, 4); }

  uint8_t* const block_;
  const size_t c_;
};

// `in`: a block of the file, as ggml-common.h declares them.
template <WeightType type>
void packBlock(const uint8_t* in, uint8_t* block, size_t c) {
  ColumnWriter<type> out(block, c);
  [[maybe_unused]] constexpr int blocks = kSuperBlock / kBlock;
  switch (type) {
    // A number is a block of one input, and a line of a tile 16 of them.
    case WeightType::F32:
    case WeightType::F16:
    case WeightType::BF16: std::memcpy(block + blockBytes(type) * c, in, blockBytes(type)); break;
    case WeightType::Q4_0:
    case WeightType::IQ4_NL:
      out.halves(in);
      out.copyLow(0, in + 2, 4);
      break;
    case WeightType::Q4_1:
      out.halves(in, in + 2);
      out.copyLow(0, in + 4, 4);
      break;
    case WeightType::Q5_0:
      out.halves(in);
      out.highBits(in + 2);
      out.copyLow(0, in + 6, 4);
      break;
    case WeightType::Q5_1:
      out.halves(in, in + 2);
      out.highBits(in + 4);
      out.copyLow(0, in + 8, 4);
      break;
    case WeightType::Q8_0: {
      uint8_t shifted[kBlock];
      for (int i = 0; i < kBlock; i++) shifted[i] = in[2 + i] ^ 0x80;
      out.halves(in);
      out.copyLow(0, shifted, 8);
      break;
    }
    case WeightType::Q2_K:  // scales[16], qs[64], d, dmin
      out.lines(in, 16);
      out.halves(in + 80, in + 82);
      for (int b = 0; b < blocks; b++) out.crumbs(b, in + 16 + 32 * (b / 4), 2 * (b % 4));
      break;
    case WeightType::Q3_K:  // hmask[32], qs[64], scales[12], d
      out.lines(in + 96, 12);
      out.halves(in + 108);
      for (int b = 0; b < blocks; b++) {
        out.crumbs(b, in + 32 + 32 * (b / 4), 2 * (b % 4));
        out.highBits(b, in, b);
      }
      break;
    case WeightType::Q4_K:  // d, dmin, scales[12], qs[128]
    case WeightType::Q5_K: {  // d, dmin, scales[12], qh[32], qs[128]
      const uint8_t* low = in + (type == WeightType::Q4_K ? 16 : 48);
      out.halves(in, in + 2);
      out.lines(in + 4, 12);
      for (int b = 0; b < blocks; b++) {
        out.nibbles(b, low + 32 * (b / 2), 4 * (b % 2));
        if (type == WeightType::Q5_K) out.highBits(b, in + 16, b);
      }
      break;
    }
    case WeightType::Q6_K:  // ql[128], qh[64], scales[16], d
      out.lines(in + 192, 16);
      out.halves(in + 208);
      for (int b = 0; b < blocks; b++) {
        out.nibbles(b, in + 64 * (b / 4) + 32 * (b % 2), 4 * (b % 4 / 2));
        out.crumbs(b, in + 128 + 32 * (b / 4), 2 * (b % 4), true);
      }
      break;
    case WeightType::IQ4_XS:  // d, scales_h (16 bits), scales_l[4], qs[128]
      out.halves(in);
      out.lines(in + 4, 4);
      out.lines(in + 2, 2, 4);
      for (int b = 0; b < blocks; b++) out.copyLow(b, in + 8 + 16 * b, 4);
      break;
  }
}

// Rows of one tile, block after block, so that a line of the tile is written by all its columns while it is near.
template <WeightType type>
void packColumns(const uint8_t* rows, size_t rowBytes, int k, uint8_t* block, size_t step, size_t column, size_t columns) {
  for (int b = 0; b < k / blockInputs(type); b++, block += step)
    for (size_t c = 0; c < columns; c++) packBlock<type>(rows + c * rowBytes + size_t(b) * blockBytes(type), block, column + c);
}

using PackFn = void (*)(const uint8_t*, size_t, int, uint8_t*, size_t, size_t, size_t);
PackFn packFunction(WeightType type) {
  switch (type) {
    case WeightType::F32: return packColumns<WeightType::F32>;
    case WeightType::F16: return packColumns<WeightType::F16>;
    case WeightType::BF16: return packColumns<WeightType::BF16>;
    case WeightType::Q4_0: return packColumns<WeightType::Q4_0>;
    case WeightType::Q4_1: return packColumns<WeightType::Q4_1>;
    case WeightType::Q5_0: return packColumns<WeightType::Q5_0>;
    case WeightType::Q5_1: return packColumns<WeightType::Q5_1>;
    case WeightType::Q8_0: return packColumns<WeightType::Q8_0>;
    case WeightType::Q2_K: return packColumns<WeightType::Q2_K>;
    case WeightType::Q3_K: return packColumns<WeightType::Q3_K>;
    case WeightType::Q4_K: return packColumns<WeightType::Q4_K>;
    case WeightType::Q5_K: return packColumns<WeightType::Q5_K>;
    case WeightType::Q6_K: return packColumns<WeightType::Q6_K>;
    case WeightType::IQ4_NL: return packColumns<WeightType::IQ4_NL>;
    case WeightType::IQ4_XS: return packColumns<WeightType::IQ4_XS>;
  }
  return nullptr;
}

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
  addressable(double(tileBytes(WeightType(type), 256)) / 256 * inputs * (columns / kLanes + 1), "a weight");
  return (size_t((columns + kLanes - 1) / kLanes) * tileBytes(WeightType(type), inputs) + 63) / 64 * 64;
}

Weight::Weight(std::shared_ptr<Arena> arena, int type_, int64_t rows_, int64_t k_)
    : type(checkedType(type_)), rows(checkedSize(rows_, "the number of rows")), k(checkedInputs(type_, k_)),
      tiles((rows + kLanes - 1) / kLanes), paired(pairs(type) && tiles % 2 == 0), arena_(std::move(arena)), data_(arena_->take(packedBytes(type_, rows_, k_))) {}

size_t Weight::fileRowBytes() const { return size_t(k / blockInputs(type)) * blockBytes(type); }

void Weight::pack(const uint8_t* bytes, size_t size, int64_t first) {
  const size_t rowBytes = fileRowBytes();
  const int64_t count = int64_t(size / rowBytes);
  if (size % rowBytes != 0 || first < 0 || count > rows - first)
    throw programError("pack: " + std::to_string(size) + " bytes from row " + std::to_string(first) + " do not fit " +
                       std::to_string(rows) + " rows of " + std::to_string(rowBytes) + " bytes");
  const PackFn pack = packFunction(type);
  for (int64_t row = first; row < first + count;) {
    const size_t column = size_t(row % kLanes), columns = std::min(size_t(kLanes) - column, size_t(first + count - row));
    const TileBlocks at = tileBlocks(type, data_, k, paired, int(row / kLanes));
    pack(bytes + size_t(row - first) * rowBytes, rowBytes, k, const_cast<uint8_t*>(at.first), at.step, column, columns);
    row += int64_t(columns);
  }
}

void Weight::unpackRow(int64_t row, float* y) const {
  if (row < 0 || row >= rows)
    throw programError("unpackRow: row " + std::to_string(row) + " of " + std::to_string(rows));
  const int c = int(row % kLanes);
  const TileBlocks at = tileBlocks(type, data_, k, paired, int(row / kLanes));
  const uint8_t* t = at.first;
  switch (type) {
    case WeightType::F32:
      for (int x = 0; x < k; x++) std::memcpy(y + x, t + (size_t(x) * kLanes + size_t(c)) * 4, 4);
      break;
    case WeightType::F16:
      for (int x = 0; x < k; x++) y[x] = halfToFloat(read16(t + (size_t(x) * kLanes + size_t(c)) * 2));
      break;
    case WeightType::BF16:
      for (int x = 0; x < k; x++) y[x] = bfloatToFloat(read16(t + (size_t(x) * kLanes + size_t(c)) * 2));
      break;
    default:
      const int inputs = blockInputs(type);
      for (int x = 0; x < k; x += inputs, t += at.step)
        for (int i = 0; i < inputs; i++) y[x + i] = blockWeight(type, t, c, i);
  }
}

}  // namespace outrider
