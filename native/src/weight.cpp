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

// A word of 32 bits of one column, or of four neighbours: packing is what loading a model takes its time for.
using Word = uint32_t;
typedef Word Words4 [[gnu::vector_size(16)]];

// The bytes of all columns one after another, then their next bytes: halves interleaved twice turn four words.
Word byLine(Word w) { return w; }
Words4 byLine(Words4 w) {
  typedef uint8_t Bytes [[gnu::vector_size(16)]];
  Bytes bytes = reinterpret_cast<Bytes>(w);
  for (int twice = 0; twice < 2; twice++)
    bytes = __builtin_shufflevector(bytes, bytes, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
  return reinterpret_cast<Words4>(bytes);
}

// A block of one row of the file or, for Words4, of four.
template <class W>
class RowBlocks {
 public:
  static constexpr int kRows = sizeof(W) / sizeof(Word);
  RowBlocks(const uint8_t* first, size_t rowBytes) : first_(first), rowBytes_(rowBytes) {}

  const uint8_t* row(int r) const { return first_ + size_t(r) * rowBytes_; }
  W word(int at) const {
    W w;
    for (int r = 0; r < kRows; r++) std::memcpy(reinterpret_cast<uint8_t*>(&w) + sizeof(Word) * size_t(r), row(r) + at, sizeof(Word));
    return w;
  }
  template <int n>
  struct Run { W w[n]; };
  // Words one after another, n a multiple of four.
  template <int n>
  Run<n> words(int at) const {
    Run<n> run;
    if constexpr (kRows == 1) {
      std::memcpy(run.w, first_ + at, sizeof run);
    } else {
      for (int i = 0; i < n; i += 4) {
        Words4 a, b, c, d;
        std::memcpy(&a, row(0) + at + 4 * i, 16);
        std::memcpy(&b, row(1) + at + 4 * i, 16);
        std::memcpy(&c, row(2) + at + 4 * i, 16);
        std::memcpy(&d, row(3) + at + 4 * i, 16);
        const Words4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
        const Words4 ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        run.w[i] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
        run.w[i + 1] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
        run.w[i + 2] = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
        run.w[i + 3] = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
      }
    }
    return run;
  }

 private:
  const uint8_t* const first_;
  const size_t rowBytes_;
};

// Writes columns c and on of a block of a tile.
template <WeightType type_, class W>
class ColumnWriter {
 public:
  using Rows = RowBlocks<W>;
  using Run4 = typename Rows::template Run<4>;
  using Run8 = typename Rows::template Run<8>;
  ColumnWriter(const Rows& in, uint8_t* block, size_t c) : in_(in), block_(block), c_(c) {}

  // `d`, `minimum`, `at`: where the file has them in its block.
  void halves(int d) { halvesLine(halvesOffset(type_), d); }
  void halves(int d, int minimum) {
    halvesLine(halvesOffset(type_), d);
    halvesLine(halvesOffset(type_) + 32, minimum);
  }
  void lines(int at, int count, int first = 0) {
    for (int i = 0; i < count; i += 4) {
      const W bytes = byLine(in_.word(at + i));
      for (int j = 0; j < std::min(4, count - i); j++)
        std::memcpy(block_ + kLanes * size_t(first + i + j) + c_, reinterpret_cast<const uint8_t*>(&bytes) + Rows::kRows * j, Rows::kRows);
    }
  }
  // Words that are packed as in the tile already.
  template <class Run>
  void copy(int b, const Run& run) {
    for (size_t g = 0; g < sizeof run.w / sizeof(W); g++) put(low(b) + 64 * g, run.w[g]);
  }
  // Of 32 inputs a byte each, the bits from `shift` on.
  void nibbles(int b, const Run8& from, int shift) {
    for (int g = 0; g < 4; g++)
      put(low(b) + 64 * g, (from.w[g] >> shift & 0x0f0f0f0fu) | (from.w[g + 4] >> shift & 0x0f0f0f0fu) << 4);
  }
  void lowCrumbs(int b, const Run8& from, int shift) { crumbs(low(b), from, shift); }
  void highCrumbs(int b, const Run8& from, int shift) { crumbs(high(b), from, shift); }
  void highBits(int b, const Run8& from, int shift) {
    W eight = from.w[0] >> shift & 0x01010101u;
    for (int g = 1; g < 8; g++) eight |= (from.w[g] >> shift & 0x01010101u) << g;
    put(high(b), eight);
  }
  // One bit for each of 32 inputs.
  void highBits(int at) {
    const W bits = in_.word(at);
    W eight = bits & 0;
    for (int g = 0; g < 8; g++) {
      const W four = bits >> 4 * g & 15;
      eight |= ((four | four << 7 | four << 14 | four << 21) & 0x01010101u) << g;
    }
    put(high(0), eight);
  }

 private:
  uint8_t* low(int b) const { return block_ + quantsOffset(type_) + size_t(b) * size_t(lowBytes(type_) + highBytes(type_)) + 4 * c_; }
  uint8_t* high(int b) const { return low(b) + lowBytes(type_); }
  void crumbs(uint8_t* to, const Run8& from, int shift) {
    for (int v = 0; v < 2; v++) {
      W four = from.w[4 * v] >> shift & 0x03030303u;
      for (int p = 1; p < 4; p++) four |= (from.w[4 * v + p] >> shift & 0x03030303u) << 2 * p;
      put(to + 64 * v, four);
    }
  }
  void halvesLine(int line, int at) {
    for (int r = 0; r < Rows::kRows; r++) std::memcpy(block_ + line + 2 * (c_ + size_t(r)), in_.row(r) + at, 2);
  }
  static void put(uint8_t* to, W w) { std::memcpy(to, &w, sizeof w); }

  const Rows& in_;
  uint8_t* const block_;
  const size_t c_;
};

// A block of a row, or of four, as ggml-common.h declares them; the type is a constant.
template <WeightType type, class W>
void packBlock(const RowBlocks<W>& in, uint8_t* block, size_t c) {
  ColumnWriter<type, W> out(in, block, c);
  [[maybe_unused]] constexpr int blocks = kSuperBlock / kBlock;
  switch (type) {
    // A number is a block of one input, and a line of a tile 16 of them.
    case WeightType::F32:
    case WeightType::F16:
    case WeightType::BF16:
      for (int r = 0; r < in.kRows; r++) std::memcpy(block + blockBytes(type) * (c + size_t(r)), in.row(r), blockBytes(type));
      break;
    case WeightType::Q4_0:
    case WeightType::IQ4_NL:
      out.halves(0);
      out.copy(0, in.template words<4>(2));
      break;
    case WeightType::Q4_1:
      out.halves(0, 2);
      out.copy(0, in.template words<4>(4));
      break;
    case WeightType::Q5_0:
      out.halves(0);
      out.highBits(2);
      out.copy(0, in.template words<4>(6));
      break;
    case WeightType::Q5_1:
      out.halves(0, 2);
      out.highBits(4);
      out.copy(0, in.template words<4>(8));
      break;
    case WeightType::Q8_0: {
      auto shifted = in.template words<8>(2);
      for (W& w : shifted.w) w ^= 0x80808080u;
      out.halves(0);
      out.copy(0, shifted);
      break;
    }
    case WeightType::Q2_K:  // scales[16], qs[64], d, dmin
      out.lines(0, 16);
      out.halves(80, 82);
      for (int b = 0; b < blocks; b += 4) {
        const auto low = in.template words<8>(16 + 8 * b);
        for (int i = 0; i < 4; i++) out.lowCrumbs(b + i, low, 2 * i);
      }
      break;
    case WeightType::Q3_K: {  // hmask[32], qs[64], scales[12], d
      out.lines(96, 12);
      out.halves(108);
      const auto high = in.template words<8>(0);
      for (int b = 0; b < blocks; b += 4) {
        const auto low = in.template words<8>(32 + 8 * b);
        for (int i = 0; i < 4; i++) {
          out.lowCrumbs(b + i, low, 2 * i);
          out.highBits(b + i, high, b + i);
        }
      }
      break;
    }
    case WeightType::Q4_K:  // d, dmin, scales[12], qs[128]
    case WeightType::Q5_K:  // d, dmin, scales[12], qh[32], qs[128]
      out.halves(0, 2);
      out.lines(4, 12);
      for (int b = 0; b < blocks; b += 2) {
        const auto low = in.template words<8>((type == WeightType::Q4_K ? 16 : 48) + 16 * b);
        out.nibbles(b, low, 0);
        out.nibbles(b + 1, low, 4);
      }
      if constexpr (type == WeightType::Q5_K) {
        const auto high = in.template words<8>(16);
        for (int b = 0; b < blocks; b++) out.highBits(b, high, b);
      }
      break;
    case WeightType::Q6_K:  // ql[128], qh[64], scales[16], d
      out.lines(192, 16);
      out.halves(208);
      for (int b = 0; b < blocks; b += 4) {
        for (int i = 0; i < 2; i++) {
          const auto low = in.template words<8>(16 * b + 32 * i);
          out.nibbles(b + i, low, 0);
          out.nibbles(b + i + 2, low, 4);
        }
        const auto high = in.template words<8>(128 + 8 * b);
        for (int i = 0; i < 4; i++) out.highCrumbs(b + i, high, 2 * i);
      }
      break;
    case WeightType::IQ4_XS:  // d, scales_h (16 bits), scales_l[4], qs[128]
      out.halves(0);
      out.lines(4, 4);
      out.lines(2, 2, 4);
      for (int b = 0; b < blocks; b++) out.copy(b, in.template words<4>(8 + 16 * b));
      break;
  }
}

// Rows of one tile, block after block, so that a line of the tile is written by all its columns while it is near.
template <WeightType type>
void packColumns(const uint8_t* rows, size_t rowBytes, int k, uint8_t* block, size_t step, size_t column, size_t columns) {
  for (int b = 0; b < k / blockInputs(type); b++, block += step, rows += blockBytes(type)) {
    size_t c = 0;
    for (; c + 4 <= columns; c += 4) packBlock<type>(RowBlocks<Words4>(rows + c * rowBytes, rowBytes), block, column + c);
    for (; c < columns; c++) packBlock<type>(RowBlocks<Word>(rows + c * rowBytes, rowBytes), block, column + c);
  }
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
