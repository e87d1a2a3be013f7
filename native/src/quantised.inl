// Products with quantised rows where a register holds four columns (NEON, WebAssembly). Included behind kernels.inl.
// Four columns at a time: their weights of a block, eight registers, stay in registers while the rows go past them.

constexpr int kPrefetchBytes = 2048;
constexpr int kRowTile = 4;

template <WeightType type, int rows>
[[gnu::noinline]] void quantisedTile(const MatmulArgs& a, int row, int tile) {
  constexpr int inputs = blockInputs(type), blocksPerScales = inputs / kBlock, quantBytes = lowBytes(type) + highBytes(type);
  constexpr bool minima = hasMinima(type), halfBlocks = hasHalfBlocks(type);
  // What `dot` leaves to the sums: the bytes of 128 and more became signed, which took 128 from each.
  constexpr int zero = unpackedMost(type) > 127 ? 0 : unpackedZero(type);
  const int blocks = a.k / kBlock;
  const uint8_t* x[rows];
  Float4 y[rows][4];
  for (int r = 0; r < rows; r++) {
    x[r] = static_cast<const uint8_t*>(a.x) + size_t(row + r) * a.xStride;
    for (int q = 0; q < 4; q++) y[r][q] = broadcastFour(0.0f);
  }
  const auto floatAt = [](const uint8_t* p) { float f; __builtin_memcpy(&f, p, 4); return f; };
  const auto intAt = [](const uint8_t* p) { int32_t i; __builtin_memcpy(&i, p, 4); return i; };
  const size_t scalesAt = size_t(a.k), scaledSumsAt = scalesAt + size_t(blocks) * 4, sumsAt = scaledSumsAt + size_t(blocks) * 4;
  const size_t halfSumsAt = sumsAt + size_t(blocks) * 4;
  const TileBlocks at = tileBlocks(type, a.weights, a.k, a.paired, tile);
  const uint8_t* quants = at.first;
  UnpackedScales scales;
  for (int b = 0; b < blocks; b++) {
    const int s = b % blocksPerScales;
    if (s == 0) {
      const uint8_t* block = at.first + size_t(b / blocksPerScales) * at.step;
      quants = block + quantsOffset(type);
      unpackScales<type>(block, scales);
    }
    for (int line = 0; line < quantBytes; line += 64) __builtin_prefetch(quants + kPrefetchBytes + line);
    for (int q = 0; q < 4; q++) {
      Int4 w[8];
      unpack<type, Part>(quants + 16 * q, w);
      if constexpr (unpackedMost(type) > 127)
        for (int g = 0; g < 8; g++) w[g] ^= broadcastFour(int32_t(0x80808080u));
      const Float4 d = loadFour(scales.d + (halfBlocks ? 0 : kLanes * s) + 4 * q);
      for (int r = 0; r < rows; r++) {
        const uint8_t* ofBlock = x[r] + size_t(b) * 4;
        const int8_t* values = reinterpret_cast<const int8_t*>(x[r]) + size_t(b) * kBlock;
        const Float4 scale = broadcastFour(floatAt(ofBlock + scalesAt));
        Int4 acc;
        if constexpr (halfBlocks) {
          const int32_t both = intAt(ofBlock + halfSumsAt);
          const Int4 sums[2] = {broadcastFour(int32_t(int16_t(both))), broadcastFour(both >> 16)};
          acc = broadcastFour(int32_t(0));
          for (int h = 0; h < 2; h++)
            acc += loadFour(scales.sub + kLanes * (2 * s + h) + 4 * q) * dot16(sums[h] * -zero, w + 4 * h, values + 16 * h);
          y[r][q] = fmaFour(toFloatFour(acc), d * scale, y[r][q]);
          if constexpr (minima) {
            Int4 n = broadcastFour(int32_t(0));
            for (int h = 0; h < 2; h++) n += loadFour(scales.minima + kLanes * (2 * s + h) + 4 * q) * sums[h];
            y[r][q] = fmaFour(-toFloatFour(n), loadFour(scales.m + 4 * q) * scale, y[r][q]);
          }
        } else {
          acc = broadcastFour(zero == 0 ? 0 : -zero * intAt(ofBlock + sumsAt));
          acc = dot16(dot16(acc, w, values), w + 4, values + 16);
          y[r][q] = fmaFour(toFloatFour(acc), d * scale, y[r][q]);
          if constexpr (minima)
            y[r][q] = fmaFour(loadFour(scales.m + kLanes * s + 4 * q), broadcastFour(floatAt(ofBlock + scaledSumsAt)), y[r][q]);
        }
      }
    }
    quants += quantBytes;
  }
  for (int r = 0; r < rows; r++) finish(a, row + r, tile, {y[r][0], y[r][1], y[r][2], y[r][3]});
}

template <WeightType type>
void matmulQuantised(const MatmulArgs& a) {
  forEachPiece<kRowTile, 1>(a, [&](auto rows, auto, int row, int tile, int, int) { quantisedTile<type, decltype(rows)::value>(a, row, tile); });
}
