// From the packed bits of kernels.h to operands of products, for every quantised type and over the lanes of lanes.h.
// Included by kernels.inl.

template <int n, class T>
LANES_INLINE T shiftTo(T a) {  // left by n, right by -n
  if constexpr (n > 0) return shiftLeft<n>(a);
  else if constexpr (n < 0) return shiftRight<-n>(a);
  else return a;
}

constexpr bool isIq4(WeightType type) { return type == WeightType::IQ4_NL || type == WeightType::IQ4_XS; }
// kIq4 with 128 added, so that products of unsigned by signed bytes can take them.
alignas(16) constexpr int8_t kUnsignedIq4[16] = {1, 24, 45, 63, 79, 93, 106, 118, int8_t(129), int8_t(141), int8_t(153),
                                                 int8_t(166), int8_t(181), int8_t(197), int8_t(217), int8_t(241)};

// What is subtracted from the unpacked bytes, and the largest of them.
constexpr int unpackedZero(WeightType type) { return isIq4(type) ? 128 : zeroPoint(type); }
constexpr int unpackedMost(WeightType type) {
  switch (type) {
    case WeightType::Q2_K: return 3;
    case WeightType::Q3_K: return 7;
    case WeightType::Q4_0:
    case WeightType::Q4_1:
    case WeightType::Q4_K: return 15;
    case WeightType::Q5_0:
    case WeightType::Q5_1:
    case WeightType::Q5_K: return 31;
    case WeightType::Q6_K: return 63;
    default: return 255;
  }
}

// The four inputs of group g in unsigned bytes, for the columns of a T. `quants`: the 32 inputs' low bits, at the first
// of these columns.
template <WeightType type, int g, class T>
LANES_INLINE T unpackGroup(const uint8_t* quants) {
  if constexpr (type == WeightType::Q8_0) return loadAs<T>(quants + 64 * g);
  T low;
  if constexpr (lowBytes(type) == 128)
    low = bitAnd(shiftTo<-2 * (g % 4)>(loadAs<T>(quants + 64 * (g / 4))), broadcastAs<T>(0x03030303));
  else
    low = bitAnd(shiftTo<g < 4 ? 0 : -4>(loadAs<T>(quants + 64 * (g % 4))), broadcastAs<T>(0x0f0f0f0f));
  const uint8_t* high = quants + lowBytes(type);
  if constexpr (type == WeightType::Q6_K)
    return bitAndOr(shiftTo<4 - 2 * (g % 4)>(loadAs<T>(high + 64 * (g / 4))), broadcastAs<T>(0x30303030), low);
  else if constexpr (highBytes(type) > 0) {
    constexpr int bit = type == WeightType::Q3_K ? 2 : 4;
    return bitAndOr(shiftTo<bit - g>(loadAs<T>(high)), broadcastAs<T>(0x01010101 << bit), low);
  } else if constexpr (isIq4(type)) return lookUp(kUnsignedIq4, low);
  else return low;
}
template <WeightType type, class T>
LANES_INLINE void unpack(const uint8_t* quants, T* w) {
  w[0] = unpackGroup<type, 0, T>(quants);
  w[1] = unpackGroup<type, 1, T>(quants);
  w[2] = unpackGroup<type, 2, T>(quants);
  w[3] = unpackGroup<type, 3, T>(quants);
  w[4] = unpackGroup<type, 4, T>(quants);
  w[5] = unpackGroup<type, 5, T>(quants);
  w[6] = unpackGroup<type, 6, T>(quants);
  w[7] = unpackGroup<type, 7, T>(quants);
}

// sc (its zero point subtracted) and mn of the 16 or 32 inputs s of a block of 256.
template <WeightType type, int s>
LANES_INLINE void unpackScale(const uint8_t* block, Int& scale, Int& minimum) {
  const auto line = [&](int n) __attribute__((always_inline)) { return loadBytes(block + kLanes * n); };
  const Int half = broadcastInt(15);
  if constexpr (type == WeightType::Q2_K) {
    scale = bitAnd(line(s), half);
    minimum = shiftRight<4>(line(s));
  } else if constexpr (type == WeightType::Q3_K) {
    const Int low = bitAnd(shiftTo<s < 8 ? 0 : -4>(line(s % 8)), half);
    const Int high = bitAnd(shiftTo<4 - 2 * (s / 4)>(line(8 + s % 4)), broadcastInt(0x30));
    scale = sub(bitOr(low, high), broadcastInt(32));
  } else if constexpr (type == WeightType::Q4_K || type == WeightType::Q5_K) {
    if constexpr (s < 4) {
      scale = bitAnd(line(s), broadcastInt(63));
      minimum = bitAnd(line(s + 4), broadcastInt(63));
    } else {
      const Int low = line(s + 4), high = broadcastInt(0x30);
      scale = bitOr(bitAnd(low, half), bitAnd(shiftRight<2>(line(s - 4)), high));
      minimum = bitOr(shiftRight<4>(low), bitAnd(shiftRight<2>(line(s)), high));
    }
  } else if constexpr (type == WeightType::Q6_K) {
    scale = shiftRightSigned<24>(shiftLeft<24>(line(s)));
  } else {
    static_assert(type == WeightType::IQ4_XS);
    const Int low = bitAnd(shiftTo<-4 * (s % 2)>(line(s / 2)), half);
    const Int high = bitAnd(shiftTo<4 - 2 * (s % 4)>(line(4 + s / 4)), broadcastInt(0x30));
    scale = sub(bitOr(low, high), broadcastInt(32));
  }
}

// The weights' d and m (kernels.h) of a block's inputs by 32 or, with half blocks, by 16, minima negative.
struct BlockScales {
  Float d[16], m[16];
};
template <WeightType type, int s = 0>
LANES_INLINE void blockScales(const uint8_t* block, BlockScales& out) {
  const uint8_t* halves = block + halvesOffset(type);
  const Float d = loadHalf(halves);
  if constexpr (!isSuperBlock(type)) {
    out.d[0] = d;
    if constexpr (hasMinima(type)) out.m[0] = loadHalf(halves + 32);
  } else {
    Int scale, minimum;
    unpackScale<type, s>(block, scale, minimum);
    out.d[s] = mul(d, toFloat(scale));
    if constexpr (hasMinima(type)) out.m[s] = negate(mul(loadHalf(halves + 32), toFloat(minimum)));
    if constexpr (s + 1 < (hasHalfBlocks(type) ? 16 : 8)) blockScales<type, s + 1>(block, out);
  }
}

// The same for products with quantised rows, in memory, a line of 16 lanes each: what does not change with the rows.
// Without half blocks: per 32 inputs d and the negative m of kernels.h. With them: one d and one dmin, and integer sc
// and mn per 16 inputs.
struct UnpackedScales {
  float d[8 * kLanes], m[8 * kLanes];
  int32_t sub[16 * kLanes], minima[16 * kLanes];
};
template <WeightType type, int s = 0>
LANES_INLINE void unpackScales(const uint8_t* block, UnpackedScales& out) {
  const uint8_t* halves = block + halvesOffset(type);
  if constexpr (!hasHalfBlocks(type)) {
    BlockScales scales;
    blockScales<type>(block, scales);
    for (int i = 0; i < (isSuperBlock(type) ? 8 : 1); i++) {
      store(out.d + kLanes * i, scales.d[i]);
      if constexpr (hasMinima(type)) store(out.m + kLanes * i, scales.m[i]);
    }
  } else {
    if constexpr (s == 0) {
      store(out.d, loadHalf(halves));
      if constexpr (hasMinima(type)) store(out.m, loadHalf(halves + 32));
    }
    Int scale, minimum;
    unpackScale<type, s>(block, scale, minimum);
    storeInt(out.sub + kLanes * s, scale);
    if constexpr (hasMinima(type)) storeInt(out.minima + kLanes * s, minimum);
    if constexpr (s < 15) unpackScales<type, s + 1>(block, out);
  }
}
