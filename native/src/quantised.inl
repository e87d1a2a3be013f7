// Products with quantised rows where a register holds four columns (NEON, WebAssembly). Included behind kernels.inl.
// Four columns at a time: their weights of a block, eight registers, stay in registers while the rows go past them.

constexpr int kPrefetchBytes = 2048;
constexpr int kRowTile = 4;

// Weights of 32 inputs of columns 4 * quarter..., signed, without the zero point that `dot` leaves to the sums.
template <WeightType type>
LANES_INLINE void loadWeights(const uint8_t* block, int quarter, Int4* w) {
  const auto at = [&](int group) { return loadFour(reinterpret_cast<const int32_t*>(block + 64 * group + 16 * quarter)); };
  if constexpr (type == WeightType::Q8_0) {
    for (int g = 0; g < 8; g++) w[g] = at(g) ^ broadcastFour(int32_t(0x80808080u));
  } else {
    const Int4 nibble = broadcastFour(int32_t(0x0f0f0f0f));
    for (int g = 0; g < 4; g++) {
      const Int4 both = at(g);
      w[g] = both & nibble;
      w[g + 4] = shiftRightFour<4>(both) & nibble;
    }
  }
}

template <WeightType type, int rows>
[[gnu::noinline]] void quantisedTile(const MatmulArgs& a, int row, int tile) {
  constexpr int quantBytes = type == WeightType::Q8_0 ? 512 : 256, blockBytes = int(tileBytes(type, kBlock));
  const int blocks = a.k / kBlock;
  const uint8_t* x[rows];
  Float4 y[rows][4];
  for (int r = 0; r < rows; r++) {
    x[r] = static_cast<const uint8_t*>(a.x) + size_t(row + r) * a.xStride;
    for (int q = 0; q < 4; q++) y[r][q] = broadcastFour(0.0f);
  }
  const uint8_t* block = a.weights + size_t(tile) * tileBytes(type, a.k);
  const auto floatAt = [](const uint8_t* p) { float f; __builtin_memcpy(&f, p, 4); return f; };
  const auto intAt = [](const uint8_t* p) { int32_t i; __builtin_memcpy(&i, p, 4); return i; };
  const size_t scalesAt = size_t(a.k), scaledSumsAt = scalesAt + size_t(blocks) * 4, sumsAt = scaledSumsAt + size_t(blocks) * 4;
  for (int b = 0; b < blocks; b++, block += blockBytes) {
    for (int line = 0; line < blockBytes; line += 64) __builtin_prefetch(block + kPrefetchBytes + line);
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(block + quantBytes);
    for (int q = 0; q < 4; q++) {
      Int4 w[8];
      loadWeights<type>(block, q, w);
      const Float4 d = loadHalfFour(halves + 4 * q);
      const Float4 m = type == WeightType::Q4_1 ? loadHalfFour(halves + kLanes + 4 * q) : d;
      for (int r = 0; r < rows; r++) {
        const uint8_t* ofBlock = x[r] + size_t(b) * 4;
        Int4 acc = broadcastFour(int32_t(0));
        if constexpr (type == WeightType::Q4_0) acc = broadcastFour(-8 * intAt(ofBlock + sumsAt));
        acc = dot(acc, w, reinterpret_cast<const int8_t*>(x[r]) + size_t(b) * kBlock);
        y[r][q] = fmaFour(toFloatFour(acc), d * broadcastFour(floatAt(ofBlock + scalesAt)), y[r][q]);
        if constexpr (type == WeightType::Q4_1) y[r][q] = fmaFour(m, broadcastFour(floatAt(ofBlock + scaledSumsAt)), y[r][q]);
      }
    }
  }
  for (int r = 0; r < rows; r++) finish(a, row + r, tile, {y[r][0], y[r][1], y[r][2], y[r][3]});
}

template <WeightType type>
void matmulQuantised(const MatmulArgs& a) {
  for (int tile = a.tileBegin; tile < a.tileEnd; tile++)
    for (int row = 0; row < a.rows; row += kRowTile)
      withConstant<kRowTile>(smaller(kRowTile, a.rows - row), [&](auto constant) {
        quantisedTile<type, decltype(constant)::value>(a, row, tile);
      });
}
